//! A steady schedule that waits for no writer.

use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The times of a schedule, each issued when it has come. A thread of its own keeps them, because
/// the runtime's timers are exact to a millisecond only.
pub(crate) fn tickets(rate: u32, count: u32) -> (UnboundedReceiver<Instant>, JoinHandle<()>) {
    let (sender, receiver) = unbounded_channel();
    let keeper = std::thread::spawn(move || {
        let start = Instant::now();
        for number in 0..count {
            let due = start + Duration::from_secs(1) * number / rate;
            sleep(due.saturating_duration_since(Instant::now()));
            if sender.send(due).is_err() {
                return;
            }
        }
    });
    (receiver, keeper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ticket_is_handed_out_early_and_none_left_out() {
        let (mut receiver, keeper) = tickets(2_000, 50);
        let mut moments = Vec::new();
        while let Some(due) = receiver.blocking_recv() {
            assert!(Instant::now() >= due);
            moments.push(due);
        }
        keeper.join().unwrap();
        assert_eq!(moments.len(), 50);
        assert!(moments.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_micros(500)));
    }
}
