//! `app users`: what must be possible before there is anybody whom a server would let in.
//!
//! It works on the store that the configuration names and needs no server. A SQLite file belongs to the process that runs, so
//! there it is done before the start or while it is stopped.

use std::{io::Read, path::PathBuf};

use clap::Subcommand;
use console::Term;

use super::{
    exit::{Failure, USAGE},
    print,
    process::{GlobalArgs, Overrides, block_on, load},
};
use crate::{app, base::secret::Secret, users::AdminMade};

/// The environment variable that holds the password.
const PASSWORD: &str = "APP_ADMIN_PASSWORD";
/// Longest password file that is read: far longer than a password may be.
const FILE_MAX: u64 = 64 * 1024;

/// `app users …`
#[derive(Debug, Subcommand)]
pub(super) enum UsersCommand {
    /// Make an administrator, or make one of the user with this address; the same again changes nothing
    ///
    /// The password comes from `--password-file`, from `APP_ADMIN_PASSWORD`, or from the terminal.
    CreateAdmin {
        /// The e-mail address to log in with
        #[arg(long, value_name = "ADDRESS")]
        email: String,
        /// How to address the user; `Administrator` for a new one if left out
        #[arg(long)]
        name: Option<String>,
        /// A file that holds the password; `-` for standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Make a new database if `store.url` names none that exists
        #[arg(long)]
        create: bool,
    },
}

pub(super) fn run(command: UsersCommand, global: &GlobalArgs, flags: &[&dyn Overrides]) -> Result<(), Failure> {
    let UsersCommand::CreateAdmin { email, name, password_file, create } = command;
    let config = load(global, flags, None)?;
    let password = password(password_file)?;
    block_on(&config.clone(), async {
        let (made, place) = app::create_admin(config, create, &email, name.as_deref(), password).await?;
        let (what, user) = match made {
            AdminMade::Created(user) => ("made administrator", user),
            AdminMade::Changed(user) => ("changed user into administrator, with this password:", user),
            AdminMade::Unchanged(user) => ("nothing to do, there is administrator", user),
        };
        let line = format!("{what} {} ({}) in {place}", user.email, user.id);
        print::line(&line).map_err(|e| app::Error::Failed(e.to_string()))
    })
}

fn password(file: Option<PathBuf>) -> Result<Secret, Failure> {
    if let Some(file) = file {
        return from_file(&file);
    }
    if let Ok(password) = std::env::var(PASSWORD)
        && !password.is_empty()
    {
        return Ok(Secret::new(password));
    }
    let terminal = Term::stderr();
    if !terminal.is_term() {
        let message = format!("no password: name a file with --password-file, or set {PASSWORD}");
        return Err(Failure::new(USAGE, message));
    }
    let ask = |prompt: &str| {
        terminal.write_str(prompt)?;
        terminal.read_secure_line()
    };
    let unreadable = |e| Failure::new(USAGE, format!("the password cannot be read from the terminal: {e}"));
    let first = ask("Password: ").map_err(unreadable)?;
    if ask("The same again: ").map_err(unreadable)? != first {
        return Err(Failure::new(USAGE, "the two passwords differ"));
    }
    Ok(Secret::new(first))
}

fn from_file(file: &std::path::Path) -> Result<Secret, Failure> {
    let wrong = |e| Failure::new(USAGE, format!("cannot read the password from {}: {e}", file.display()));
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(FILE_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(FILE_MAX).read_to_string(&mut text))
    };
    read.map_err(wrong)?;
    // Editors end files with a newline that is not part of the password.
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}
