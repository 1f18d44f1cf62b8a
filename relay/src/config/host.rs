//! The name of the machine.

/// The name of the machine: from the kernel on Linux, elsewhere from the program `hostname`.
pub(crate) fn host_name() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = kernel.or_else(|_absent| {
        let output = std::process::Command::new("hostname").output()?;
        String::from_utf8(output.stdout).map_err(std::io::Error::other)
    });
    name.map(|name| name.trim().to_owned()).unwrap_or_default()
}
