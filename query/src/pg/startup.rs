//! How a client gets in: it names the database and gives its token as the password.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion_postgres::pgwire::api::auth::{
    DefaultServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
};
use datafusion_postgres::pgwire::api::{
    ClientInfo, ConnectionGuard, ConnectionHandle, PgWireConnectionState, PidSecretKeyGenerator,
};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::startup::Authentication;
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use futures::{Sink, SinkExt};

use super::session::Session;
use super::{Door, failure};
use crate::catalog::CATALOG;
use crate::pg_catalog::SERVER_VERSION;

pub(super) struct Startup(pub(super) Arc<Door>);

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match message {
            PgWireFrontendMessage::Startup(startup) => {
                protocol_negotiation(client, &startup).await?;
                if self.0.needs_tls && !client.is_secure() {
                    return Err(failure::fatal(
                        "28000",
                        "tokens are taken over TLS only",
                        Some("connect with sslmode=require, or better verify-full"),
                    ));
                }
                let of = |key: &str| startup.parameters.get(key).map(String::as_str);
                let database = of("database").or(of("user")).unwrap_or_default();
                if database != CATALOG {
                    let message = format!("database \"{database}\" does not exist");
                    return Err(failure::fatal(
                        "3D000",
                        &message,
                        Some("the database is called `sluice`"),
                    ));
                }
                client.set_state(PgWireConnectionState::AuthenticationInProgress);
                let ask = PgWireBackendMessage::Authentication(Authentication::CleartextPassword);
                client.send(ask).await?;
                Ok(())
            }
            PgWireFrontendMessage::PasswordMessageFamily(given) => {
                let password = given.into_password()?;
                let Some(who) = self.0.tokens.identify(&password.password) else {
                    return Err(failure::fatal(
                        "28P01",
                        "the token is not known here",
                        Some("the password is a token of this node; the user may be anything"),
                    ));
                };
                let (pid, key) = self.0.keys.generate(client);
                client.set_pid_and_secret_key(pid, key.clone());
                let (handle, guard) = self.0.running.register(pid, key);
                let extensions = client.session_extensions();
                extensions.insert::<Arc<ConnectionHandle>>(handle);
                extensions.insert::<ConnectionGuard>(guard);
                extensions.insert(Session::new(who));
                finish_authentication(client, &parameters()).await
            }
            _ => Err(failure::fatal("08P01", "a password was expected", None)),
        }
    }
}

/// What a client is told of the server before its first query.
fn parameters() -> DefaultServerParameterProvider {
    let mut parameters = DefaultServerParameterProvider::default();
    parameters.server_version = SERVER_VERSION.to_owned();
    parameters.is_superuser = false;
    parameters.default_transaction_read_only = true;
    parameters.time_zone = "UTC".to_owned();
    parameters.date_style = "ISO, MDY".to_owned();
    parameters
}
