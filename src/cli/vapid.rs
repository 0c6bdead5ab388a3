//! `app vapid`: keys by which browsers' push services know an installation.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    exit::{FAILED, Failure},
    print,
};
use crate::notifications::channels::generate_vapid;

/// `app vapid …`
#[derive(Debug, Subcommand)]
pub(super) enum VapidCommand {
    /// Make a pair of keys for web push, and print it with the lines of configuration that use it; nothing is kept
    Generate(GenerateArgs),
}

/// How to print the keys.
#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// Print both keys as JSON instead
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &VapidCommand) -> Result<(), Failure> {
    let VapidCommand::Generate(args) = command;
    let keys = generate_vapid().map_err(|e| Failure::new(FAILED, e.message))?;
    let (private, public) = (keys.private.reveal(), keys.public);
    if args.json {
        return print::json(&json!({"private_key": private, "public_key": public}));
    }
    print::line(&format!(
        "Private key: {private}\nPublic key:  {public}\n\n\
         Keep the private key secret, and keep it: with another one every browser must subscribe again. In the configuration:\n\n\
         [push]\nvapid_private_key = \"{private}\"\nvapid_subject = \"mailto:YOU@EXAMPLE.ORG\"\n\n\
         Give the public key to browsers as the applicationServerKey with which they subscribe."
    ))
}
