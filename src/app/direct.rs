//! Commands that work on the backends directly, without a role that runs.

use std::sync::Arc;

use super::{
    Error, Finding,
    build::{Plan, assemble},
    close, fitness,
};
use crate::{
    base::{
        clock::Clock,
        id::QueueName,
        probe::{Probe, Unfit},
        secret::Secret,
        zone::Zones,
    },
    config::Config,
    http,
    store::{Found, Place, Sync, Target},
    users::{AdminMade, UserError, check_admin},
};

/// Brings the store to the newest schema.
///
/// # Errors
/// If the store cannot be opened, changed or closed.
pub async fn migrate(config: &Config) -> Result<(), Error> {
    let stores = Target::parse(&config.store.url)?.open(Sync::Full)?;
    let migrated = fit(stores.probe.as_ref()).await;
    close(&stores, migrated).await
}

/// Makes sure that there is an administrator with this e-mail address and password, and returns
/// where. Makes no database unless `may_make` says so, nor if the address or password is refused.
///
/// # Errors
/// If there is no database, it cannot be opened, or the address or password is refused.
pub async fn create_admin(
    config: Config,
    may_make: bool,
    email: &str,
    name: Option<&str>,
    password: Secret,
) -> Result<(AdminMade, Place), Error> {
    let clock = Clock::system();
    let plan = Plan::of(&config, &clock)?;
    let place = plan.target.place().clone();
    let failed = |e: UserError| Error::Failed(e.to_string());
    // Now, because the opening makes a database that is missing.
    check_admin(email, name, &password, &clock, &plan.zones).map_err(failed)?;
    // Whatever else the look may find, the opening finds and says, too.
    if !may_make && fitness::bounded(plan.target.look()).await.is_ok_and(|found| !found.exists) {
        return Err(Error::Failed(format!(
            "there is no database at {place}: name that of the server with --store-url (or in its configuration), or \
             say --create to make a new one there"
        )));
    }
    let app = assemble(plan, config, clock)?;
    let made = async {
        fit(app.stores.probe.as_ref()).await?;
        app.users.create_admin(email, name, password).await.map_err(failed)
    };
    let made = close(&app.stores, made.await).await?;
    Ok((made, place))
}

async fn fit(probe: &dyn Probe) -> Result<(), Error> {
    match probe.inspect().await {
        Ok(_warnings) => Ok(()),
        Err(Unfit::Refused(e)) => Err(Error::Config(e)),
        Err(Unfit::Unavailable(e)) => Err(Error::Failed(e)),
    }
}

/// What a look at everything that the configuration names found.
pub struct Report {
    /// Whose rules of time zones hold.
    pub zones: Zones,
    /// The backends.
    pub findings: Vec<Finding>,
}

/// Looks at every backend that the configuration names: whether it lets this program in, which
/// settings put at risk what is promised, and which of the workers' queues and which rights its
/// server refuses. The look makes nothing that lasts, and no worker hears of it.
///
/// # Errors
/// If the configuration cannot be used.
pub async fn inspect(config: &Config) -> Result<Report, Error> {
    let Plan { target, broker, cache, zones, .. } = Plan::of(config, &Clock::system())?;
    let others: [Arc<dyn Probe>; 2] = [Arc::clone(&broker) as Arc<dyn Probe>, cache];
    let (found, mut others) = tokio::join!(fitness::bounded(target.look()), fitness::look(&others));
    let place = target.place();
    let found = found.map(|Found { exists, mut warnings }| {
        if !exists {
            let maker = match place {
                Place::File(_) => "`app all`",
                Place::Server(_) => "`app migrate`, or the first role to start,",
            };
            warnings.insert(0, format!("there is no database at {place}; {maker} would make it"));
        }
        warnings
    });
    // The first is the broker.
    if let Some(Finding { found: Ok(warnings), .. }) = others.first_mut() {
        let queues: Vec<QueueName> = config.worker.queues.0.iter().map(|(queue, _)| queue.clone()).collect();
        warnings.extend(fitness::refusals(broker.as_ref(), &queues).await);
    }
    let store = Finding { name: target.name(), place: Some(place.to_string()), found };
    Ok(Report { zones, findings: std::iter::once(store).chain(others).collect() })
}

/// Where the configuration keeps everything.
///
/// # Errors
/// A sentence, if `store.url` cannot be used.
pub fn place(config: &Config) -> Result<Place, Error> {
    Ok(Target::parse(&config.store.url)?.place().clone())
}

/// The OpenAPI document of the HTTP API.
#[must_use]
pub fn openapi_json() -> String {
    format!("{:#}", http::document())
}
