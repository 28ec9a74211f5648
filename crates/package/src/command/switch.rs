//! `disable` and `enable`: the kill switch, and what it means.

use std::env;
use std::io::{self, IsTerminal, Write};

use super::{CommandError, Host, Output, StoreArgs};
use crate::manifest::Kind;
use crate::name::PackageName;
use crate::store::{State, Store};

/// Characters of a user's name in a reason.
const USER_CHARS: usize = 64;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice plugin disable acme/demo --reason 'burns a core since 14:00'
  sluice plugin disable mask --yes                             from a script: nobody is asked

From within a second on, nothing of the package runs on a running edge, and events pass as if the chain did not name it. Of a MASK
this means that they pass UNMASKED into the journal and to the cloud: a mask that fails refuses its events, one that is switched off
does not. To stop the data instead, stop the edge or its source. What may be a mask is therefore only disabled after a question, or
with --yes.")]
pub struct DisableArgs {
    /// The package
    name: PackageName,
    /// Why, for whoever wonders; by default who did it. The time is kept with it
    #[arg(long)]
    reason: Option<String>,
    /// Do not ask, also where events pass unmasked from then on
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, clap::Args)]
pub struct EnableArgs {
    /// The package
    name: PackageName,
    #[command(flatten)]
    store: StoreArgs,
}

/// What is known of what is switched off.
enum Known {
    Kind(Kind),
    /// Neither installed here nor a standard plugin: a component that the configuration names, or nothing yet.
    Nothing,
}

pub(super) fn disable(args: &DisableArgs, host: &Host<'_>, output: &mut Output<'_>) -> Result<(), CommandError> {
    let name = &args.name;
    let store = args.store.open(host)?;
    let state = store.state()?;
    let known = known(name, &store, &state, host);
    let is_off = state.plugins.get(name).is_some_and(|plugin| plugin.disabled.is_some());
    let warning = match known {
        Known::Kind(Kind::Mask) => Some(format!("{name} is a mask: while it is disabled, events pass UNMASKED")),
        Known::Kind(_) => None,
        Known::Nothing => Some(format!(
            "no package {name} is installed here and no standard plugin has this name: if the chain's {name} is a mask, events \
             pass UNMASKED while it is disabled"
        )),
    };
    if let Some(warning) = warning.as_ref().filter(|_| !args.yes && !is_off) {
        let question = format!(
            "{warning}, into the journal and to the cloud; to stop the data instead, stop the edge.\nDisable {name}?"
        );
        match (host.ask)(&question) {
            Some(true) => {}
            Some(false) => return Err(CommandError::Declined),
            None => {
                let text = format!("{warning}; there is nobody to ask here: --yes says that this is meant");
                return Err(CommandError::Usage(text));
            }
        }
    }
    let reason = args.reason.clone().unwrap_or_else(|| unsaid(user().as_deref()));
    store.disable(name, &reason)?;
    writeln!(output.out, "{name} is disabled")?;
    match (warning, known) {
        (Some(warning), _) => writeln!(output.notes, "{warning}")?,
        (None, Known::Kind(kind)) => writeln!(output.notes, "it is of the kind {kind}: events pass without it")?,
        (None, Known::Nothing) => {}
    }
    writeln!(output.notes, "again: sluice plugin enable {name}")?;
    Ok(())
}

pub(super) fn enable(args: &EnableArgs, host: &Host<'_>, output: &mut Output<'_>) -> Result<(), CommandError> {
    args.store.open(host)?.enable(&args.name)?;
    writeln!(output.out, "{} is enabled", args.name)?;
    Ok(())
}

/// By the version that runs, or else the highest that is here. One that cannot be verified may be anything.
fn known(name: &PackageName, store: &Store, state: &State, host: &Host<'_>) -> Known {
    let installed = state.plugins.get(name).filter(|plugin| !plugin.versions.is_empty());
    let kind = match installed {
        Some(plugin) => {
            let version = plugin.current.as_ref().or(plugin.versions.keys().next_back());
            let verified = version.and_then(|version| store.verify_installed(name, &version.0).ok());
            verified.map(|verified| verified.manifest.kind)
        }
        None => (host.standard)(name.as_str()),
    };
    kind.map_or(Known::Nothing, Known::Kind)
}

fn unsaid(user: Option<&str>) -> String {
    match user {
        Some(user) => format!("no reason given, by {user}"),
        None => "no reason given".to_owned(),
    }
}

/// Who types, as far as the environment tells.
fn user() -> Option<String> {
    let named = |variable: &str| env::var(variable).ok();
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(named)?;
    let user: String = user.chars().filter(|c| !c.is_control()).take(USER_CHARS).collect();
    let user = user.trim();
    (!user.is_empty()).then(|| user.to_owned())
}

/// Puts a question to whoever sits at the terminal; `None` where nobody does.
pub fn ask_on_terminal(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    let mut terminal = io::stderr();
    write!(terminal, "{question} [y/N] ")
        .and_then(|()| terminal.flush())
        .ok()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).ok()?;
    let answer = answer.trim().to_ascii_lowercase();
    Some(answer == "y" || answer == "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_nobody_gave_names_who_did_it() {
        assert_eq!(unsaid(Some("ada")), "no reason given, by ada");
        assert_eq!(unsaid(None), "no reason given");
    }
}
