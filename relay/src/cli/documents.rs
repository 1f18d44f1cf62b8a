//! The subcommands `completions` and `man`: written from the declarations of the arguments, without
//! a configuration.

use std::io::{Error, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::arguments::{Arguments, CliCommand};

impl Arguments {
    /// Executes a subcommand that needs no configuration; none if this one does.
    #[must_use]
    pub fn execute_alone(&self) -> Option<Result<(), Error>> {
        match &self.command {
            CliCommand::Completions { shell } => Some(completions(*shell)),
            CliCommand::Man { directory } => Some(man_pages(directory)),
            _ => None,
        }
    }
}

fn completions(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "annals-relay", &mut script);
    std::io::stdout().write_all(&script)
}

/// A page for the program and one for each subcommand.
fn man_pages(directory: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Arguments::command(), directory)
}
