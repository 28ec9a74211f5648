//! What an operator and a publisher type: `sluice plugin …` and `sluice-edge plugin …`.

mod keys;
mod node_folder;
mod packages;
mod progress;
mod report;
mod revoke;
mod running;
mod switch;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Subcommand;

pub use progress::Progress;
pub use switch::ask_on_terminal;

use crate::key::KeyError;
use crate::manifest::{ComponentFacts, FactMismatch, Kind};
use crate::name::NameError;
use crate::oci::{Access, Credentials, CredentialsError, OciError, Reference, ReferenceError};
use crate::policy::Policy;
use crate::revocation::RevocationError;
use crate::source::SourceError;
use crate::store::{StateError, Store, StoreError};
use node_folder::Create;

/// What the program that offers these commands knows and this crate does not.
#[expect(missing_debug_implementations, reason = "a closure of the program has none")]
pub struct Host<'a> {
    /// Looks into a component.
    pub inspect: &'a (dyn Fn(&[u8]) -> Result<ComponentFacts, String> + Sync),
    pub policy: Policy,
    /// The node's data folder, where `--data` is not given.
    pub data: PathBuf,
    /// The kind of a plugin that is part of the node's program.
    pub standard: &'a (dyn Fn(&str) -> Option<Kind> + Sync),
    /// Puts a question to a person; `None` where there is none. [`ask_on_terminal`] does it.
    pub ask: &'a (dyn Fn(&str) -> Option<bool> + Sync),
}

/// Where a command writes.
#[expect(missing_debug_implementations, reason = "what is written to need not have one")]
pub struct Output<'a> {
    /// What was asked for.
    pub out: &'a mut (dyn Write + Send),
    /// What one should know beside it.
    pub notes: &'a mut (dyn Write + Send),
}

/// Packages of plugins: sign, publish, install, replace, stop
#[derive(Debug, Subcommand)]
pub enum PackageCommand {
    /// Make a key that signs packages
    Keygen(keys::KeygenArgs),
    /// Whose packages this node takes
    #[command(subcommand)]
    Trust(keys::TrustCommand),
    /// Make a signed package of a component
    Sign(packages::SignArgs),
    /// Check a package as installing it would, and install nothing
    Verify(packages::VerifyArgs),
    /// Put a signed package, or a revocation list, into a registry or an OCI layout folder
    Publish(packages::PublishArgs),
    /// Take a package in; from then on it runs
    Install(packages::InstallArgs),
    /// What is installed here and what runs
    List(running::ListArgs),
    /// Go back to the version that ran before, or to an older one that is installed
    Rollback(running::RollbackArgs),
    /// Take versions, components or keys back, for everybody who imports the list
    Revoke(revoke::RevokeArgs),
    /// The kill switch: nothing of this package runs any more
    Disable(switch::DisableArgs),
    /// Let a disabled package run again
    Enable(switch::EnableArgs),
    /// Run a version beside the current one on a share of the batches, without effect
    Shadow(running::ShadowArgs),
    /// Make an installed version the one that runs; by default the one in the shadow
    Promote(running::PromoteArgs),
    /// Remove a version that does not run, or a whole package
    Remove(running::RemoveArgs),
}

/// Which node.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StoreArgs {
    /// The node's data folder: `sluice-data/edge` of `sluice up`, `data_dir` of an edge
    #[arg(long, value_name = "DIR", env = "SLUICE_DATA")]
    pub data: Option<PathBuf>,
}

/// Which node, where it may not have run yet.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct NewStoreArgs {
    #[command(flatten)]
    node: StoreArgs,
    /// Make the data folder of a node that has not run yet
    #[arg(long)]
    create: bool,
}

/// How a registry is reached.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RegistryArgs {
    /// Log in as this user; by default as `docker login` did
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub username: Option<String>,
    /// The file that holds the password
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
    /// Plain HTTP although the registry is not on this machine
    #[arg(long)]
    pub insecure_http: bool,
    /// Certificates of authorities to trust beside the system's, in PEM
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{0}")]
    Usage(String),
    #[error("nothing was changed")]
    Declined,
    #[error("{0}")]
    Component(String),
    #[error(transparent)]
    Mismatch(#[from] FactMismatch),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Oci(#[from] OciError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("cannot {action} {}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write what was asked for")]
    Output(#[from] io::Error),
}

impl From<ReferenceError> for CommandError {
    fn from(error: ReferenceError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<NameError> for CommandError {
    fn from(error: NameError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<RevocationError> for CommandError {
    fn from(error: RevocationError) -> Self {
        Self::Store(error.into())
    }
}

impl CommandError {
    /// 1 failed, 2 wrong usage, 3 refused: the component, the package, its signature or the rules of the store say no.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Component(_) | Self::Mismatch(_) => 3,
            Self::Store(StoreError::Refused { .. } | StoreError::Exchanged { .. } | StoreError::Revocation(_)) => 3,
            Self::Store(StoreError::State(error)) => match error {
                StateError::Downgrade { .. }
                | StateError::VersionTaken { .. }
                | StateError::Bad { .. }
                | StateError::Disabled { .. }
                | StateError::InUse { .. } => 3,
                StateError::Share { .. } | StateError::Reason => 2,
                _ => 1,
            },
            Self::Oci(OciError::Corrupt { .. } | OciError::Taken { .. } | OciError::Foreign { .. }) => 3,
            Self::Oci(OciError::Revocations(_)) => 3,
            Self::Oci(OciError::Several { .. }) => 2,
            Self::Source(SourceError::Version { .. } | SourceError::Capability { .. } | SourceError::Manifest(_)) => 3,
            _ => 1,
        }
    }
}

/// What the exit codes of these commands mean, for the program's help.
pub const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused (signature, revocation, expiry, downgrade, …).";

/// Runs a command to its end.
pub async fn run(command: PackageCommand, host: &Host<'_>, output: &mut Output<'_>) -> Result<(), CommandError> {
    match command {
        PackageCommand::Keygen(args) => keys::keygen(&args, output),
        PackageCommand::Trust(command) => keys::trust(command, host, output),
        PackageCommand::Sign(args) => packages::sign(&args, host, output),
        PackageCommand::Verify(args) => packages::verify(&args, host, output).await,
        PackageCommand::Publish(args) => packages::publish(&args, output).await,
        PackageCommand::Install(args) => packages::install(&args, host, output).await,
        PackageCommand::List(args) => running::list(&args, host, output),
        PackageCommand::Rollback(args) => running::rollback(&args, host, output),
        PackageCommand::Revoke(args) => revoke::revoke(&args, host, output).await,
        PackageCommand::Disable(args) => switch::disable(&args, host, output),
        PackageCommand::Enable(args) => switch::enable(&args, host, output),
        PackageCommand::Shadow(args) => running::shadow(&args, host, output),
        PackageCommand::Promote(args) => running::promote(&args, host, output),
        PackageCommand::Remove(args) => running::remove(&args, host, output),
    }
}

impl StoreArgs {
    fn open(&self, host: &Host<'_>) -> Result<Store, CommandError> {
        self.open_or(Create::Never, host)
    }

    fn open_or(&self, create: Create, host: &Host<'_>) -> Result<Store, CommandError> {
        let data = self.data.as_ref().unwrap_or(&host.data);
        node_folder::check(data, create)?;
        Ok(Store::open(data.join("plugins"), host.policy.clone()))
    }
}

impl NewStoreArgs {
    fn open(&self, host: &Host<'_>) -> Result<Store, CommandError> {
        let create = match self.create {
            true => Create::Asked,
            false => Create::Possible,
        };
        self.node.open_or(create, host)
    }
}

impl RegistryArgs {
    fn access(&self, reference: &Reference) -> Result<Access, CommandError> {
        let credentials = match (&self.username, &self.password_file, reference) {
            (Some(user), Some(file), _) => Some(Credentials::from_password_file(user, file)?),
            (_, _, Reference::Registry { host, .. }) => Credentials::from_docker(host)?,
            (_, _, Reference::Layout { .. }) => None,
        };
        Ok(Access {
            credentials,
            insecure_http: self.insecure_http,
            ca_file: self.ca_file.clone(),
        })
    }
}

fn cannot(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> CommandError {
    let path = path.into();
    move |source| CommandError::Io { action, path, source }
}
