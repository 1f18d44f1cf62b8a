//! The totals straight from the file: by column, without the types and events that the rest of the
//! demo uses, so that a mistake there shows as a difference.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use csv::StringRecord;

use crate::rows;
use crate::totals::{Flown, Tally, Totals};

/// Adds up a file of flights.
pub(crate) fn totals(path: &Path) -> Result<Totals> {
    let mut reader = rows::read(path)?;
    let columns = Columns::of(reader.headers()?)
        .with_context(|| format!("{} is no file of flights", path.display()))?;
    let mut totals = Totals::default();
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).with_context(|| format!("read {}", path.display()))? {
        let line = record.position().map_or(0, csv::Position::line);
        let at = || format!("line {line} of {}", path.display());
        add(&mut totals, &Fields { columns: &columns, record: &record }).with_context(at)?;
    }
    Ok(totals)
}

fn add(totals: &mut Totals, fields: &Fields<'_>) -> Result<()> {
    let tally = tally(fields)?;
    totals.all += tally;
    *totals.by_carrier.entry(fields.text("carrier")?.to_owned()).or_default() += tally;
    *totals.by_destination.entry(fields.text("dest")?.to_owned()).or_default() += tally;
    if tally.arrived == 1 && !rows::is_unknown(fields.text("tailnum")?) {
        let leg = Flown {
            legs: 1,
            miles: fields.number("distance")?.context("a flight without distance")?,
            air_time_minutes: fields.number("air_time")?.context("an arrival without air time")?,
        };
        totals.flown += leg;
        *totals.by_aircraft.entry(fields.text("tailnum")?.to_owned()).or_default() += leg;
    }
    Ok(())
}

fn tally(fields: &Fields<'_>) -> Result<Tally> {
    let left = fields.number("dep_time")?.is_some();
    let arrived = fields.number("arr_delay")?;
    Ok(Tally {
        flights: 1,
        cancelled: i64::from(!left),
        departed: i64::from(left),
        arrived: i64::from(arrived.is_some()),
        departure_delay_minutes: fields.number("dep_delay")?.unwrap_or(0),
        arrival_delay_minutes: arrived.unwrap_or(0),
    })
}

/// The index of each column.
struct Columns(HashMap<String, usize>);

struct Fields<'a> {
    columns: &'a Columns,
    record: &'a StringRecord,
}

impl Columns {
    const READ: [&'static str; 8] = [
        "dep_time",
        "dep_delay",
        "arr_delay",
        "carrier",
        "tailnum",
        "dest",
        "air_time",
        "distance",
    ];

    fn of(headers: &StringRecord) -> Result<Self> {
        let columns = headers.iter().enumerate().map(|(place, name)| (name.to_owned(), place));
        let columns: HashMap<_, _> = columns.collect();
        for name in Self::READ {
            columns.get(name).with_context(|| format!("it has no column {name}"))?;
        }
        Ok(Self(columns))
    }
}

impl<'a> Fields<'a> {
    fn text(&self, column: &str) -> Result<&'a str> {
        let field = self.columns.0.get(column).and_then(|place| self.record.get(*place));
        field.with_context(|| format!("no field {column}"))
    }

    fn number(&self, column: &str) -> Result<Option<i64>> {
        let text = self.text(column)?;
        if rows::is_unknown(text) {
            return Ok(None);
        }
        text.parse().map(Some).with_context(|| format!("{column} is {text:?}, which is no number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_month_adds_up_to_what_other_tools_count() {
        // Counted by awk over the same file.
        let totals = totals(&rows::month()).unwrap();
        let Totals { all, flown, by_carrier, by_destination, by_aircraft } = &totals;
        assert_eq!((all.flights, all.cancelled, all.arrived), (27_004, 521, 26_398));
        assert_eq!((by_carrier.len(), by_destination.len(), by_aircraft.len()), (16, 94, 3_140));
        assert_eq!((all.departure_delay_minutes, all.arrival_delay_minutes), (265_801, 161_819));
        assert_eq!(
            (flown.legs, flown.miles, flown.air_time_minutes),
            (26_398, 26_755_517, 4_070_239)
        );
    }

    #[test]
    fn file_without_the_columns_is_refused_by_name() {
        let headers = StringRecord::from(vec!["dep_time", "dep_delay"]);
        let refused = Columns::of(&headers).err().map(|error| error.to_string());
        assert_eq!(refused.as_deref(), Some("it has no column arr_delay"));
    }
}
