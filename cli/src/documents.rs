//! The subcommands `completions` and `man`, which need no database.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::AnnalsArguments;

/// The arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell that reads the script.
    shell: Shell,
}

/// The arguments of `man`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Where the pages are written to; it is created.
    directory: PathBuf,
}

impl Completions {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut AnnalsArguments::command(), "annals", &mut script);
        Ok(std::io::stdout().write_all(&script)?)
    }
}

impl Man {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        Ok(clap_mangen::generate_to(AnnalsArguments::command(), &self.directory)?)
    }
}
