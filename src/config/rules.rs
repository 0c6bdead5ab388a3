//! Rules that join several settings, or a setting and the role, so that they can only be checked at the start.

use super::{AuthMode, Config, Error, Role};

impl Config {
    /// Refuses to listen beyond this host without anyone having said that this is meant.
    ///
    /// # Errors
    /// A sentence with the two ways out.
    pub fn check_exposure(&self, role: Role) -> Result<(), Error> {
        let (key, bind) = match (role.listens(), self.probe.bind) {
            (true, _) => ("http.bind", self.http.bind),
            (false, Some(bind)) => ("probe.bind", bind),
            (false, None) => return Ok(()),
        };
        // `::ffff:127.0.0.1` is loopback, too, which `Ipv6Addr::is_loopback` does not say.
        if bind.ip().to_canonical().is_loopback() || self.auth.mode != AuthMode::Loopback {
            return Ok(());
        }
        Err(Error(format!(
            "`{key}` is {bind}, which other hosts can reach, but `auth.mode = \"loopback\"` lets anyone in who can \
             reach it; listen on 127.0.0.1, set `auth.mode = \"required\"`, or set `auth.mode = \"open\"` if a proxy or \
             firewall decides who may call"
        )))
    }

    /// Refuses to make tokens that only one of several servers knows.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub fn check_keys(&self, role: Role) -> Result<(), Error> {
        let alone = role == Role::All && has_scheme(&self.store.url, "sqlite");
        if self.auth.mode != AuthMode::Required || !role.listens() || !self.auth.jwt_keys.is_empty() || alone {
            return Ok(());
        }
        Err(Error(
            "`auth.jwt_keys` is empty, so each server would sign tokens with a key of its own, which no other server knows; \
             set it to the same `NAME:SECRET` for all, with a secret made by `openssl rand -base64 48` (from a file: \
             APP__AUTH__JWT_KEYS_FILE)"
                .to_owned(),
        ))
    }

    /// Refuses backends that live inside one process for a role that shares its work with other processes.
    ///
    /// # Errors
    /// A sentence that says why and what to do.
    pub fn check_role(&self, role: Role) -> Result<(), Error> {
        if role == Role::All {
            return Ok(());
        }
        let name = role.name();
        if has_scheme(&self.broker.url, "embedded") {
            return Err(Error(format!(
                "`app {name}` cannot use `broker.url = \"embedded://\"`, because that broker lives inside one process and \
                 no other would hear of a job; run `app all`, or set `broker.url` to a broker server"
            )));
        }
        if has_scheme(&self.store.url, "sqlite") {
            return Err(Error(format!(
                "`app {name}` cannot use a `sqlite://` store, because one process owns that file and other roles need the \
                 same jobs; run `app all`, or set `store.url` to a database server"
            )));
        }
        Ok(())
    }
}

fn has_scheme(url: &str, scheme: &str) -> bool {
    url.split_once("://").is_some_and(|(s, _)| s.eq_ignore_ascii_case(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn config(flags: &[(&str, &str)]) -> Config {
        load(&Sources {
            flags: flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Sources::default()
        })
        .unwrap()
    }

    #[test]
    fn only_loopback_is_served_without_saying_open() {
        for bind in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            config(&[("http.bind", bind)]).check_exposure(Role::Serve).unwrap();
        }
        for bind in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
            let e = config(&[("http.bind", bind)]).check_exposure(Role::Serve).unwrap_err().to_string();
            assert!(e.contains("auth.mode = \"open\""), "{e}");
            for mode in ["open", "required"] {
                config(&[("http.bind", bind), ("auth.mode", mode)]).check_exposure(Role::Serve).unwrap();
            }
        }
    }

    #[test]
    fn servers_that_share_tokens_need_a_key() {
        let required = ("auth.mode", "required");
        let fleet = ("store.url", "mongodb://h/app");
        let key = format!("a:{}", "x".repeat(32));
        config(&[required]).check_keys(Role::All).unwrap();
        config(&[fleet]).check_keys(Role::Serve).unwrap();
        config(&[required, fleet]).check_keys(Role::Worker).unwrap();
        for role in [Role::Serve, Role::All] {
            let e = config(&[required, fleet]).check_keys(role).unwrap_err().to_string();
            assert!(e.starts_with("`auth.jwt_keys` is empty"), "{e}");
            config(&[required, fleet, ("auth.jwt_keys", &key)]).check_keys(role).unwrap();
        }
    }

    #[test]
    fn one_process_backends_serve_only_the_role_all() {
        let c = config(&[]);
        c.check_role(Role::All).unwrap();
        let e = c.check_role(Role::Worker).unwrap_err().to_string();
        assert!(e.starts_with("`app worker` cannot use `broker.url = \"embedded://\"`"), "{e}");
        let c = config(&[("broker.url", "redis://localhost")]);
        let e = c.check_role(Role::Serve).unwrap_err().to_string();
        assert!(e.contains("sqlite://"), "{e}");
        let c = config(&[("broker.url", "redis://localhost"), ("store.url", "mongodb://localhost/app")]);
        c.check_role(Role::Scheduler).unwrap();
    }
}
