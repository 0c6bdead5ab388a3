//! The bounds of the notification channels' sections.
//!
//! What a channel needs besides its host or key is asked for only when it has one, so that an empty section is right.

use super::{Checked, MS, SECOND, choice, fault, time, url, whole};
use crate::{
    base::secret::Secret,
    config::{Email, Network, Notifications, Push, SmtpTls, Webhook, settings},
};

pub(super) fn notifications(s: &settings::Notifications) -> Checked<Notifications> {
    let web = ["http://", "https://"].iter().any(|scheme| s.public_url.starts_with(scheme));
    if !s.public_url.is_empty() && (!web || s.public_url.contains(|c: char| c.is_whitespace() || c.is_control())) {
        let message = format!("is \"{}\", but must be a URL such as \"https://app.example.org\"", s.public_url);
        return Err(fault("notifications.public_url", message));
    }
    let rate = |key, n| whole(key, n, 0, 1_000_000);
    Ok(Notifications {
        public_url: s.public_url.clone(),
        rules: s.rules.clone(),
        email_per_minute: rate("notifications.email_per_minute", s.email_per_minute)?,
        push_per_minute: rate("notifications.push_per_minute", s.push_per_minute)?,
        webhook_per_minute: rate("notifications.webhook_per_minute", s.webhook_per_minute)?,
    })
}

pub(super) fn email(s: &settings::Email) -> Checked<Email> {
    let set_up = !s.host.is_empty();
    if s.host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
        return Err(fault("email.host", "is no host name; write the relay's name alone, such as \"smtp.example.org\""));
    }
    if set_up && s.from.is_empty() {
        return Err(fault("email.from", "is empty, but `email.host` is set; write the sender's address"));
    }
    one_line("email.username", &s.username)?;
    one_line("email.from_name", &s.from_name)?;
    if s.username.is_empty() != s.password.is_empty() {
        let (key, other) = match s.username.is_empty() {
            true => ("email.username", "email.password"),
            false => ("email.password", "email.username"),
        };
        return Err(fault(key, format!("is empty, but `{other}` is set; set both or neither")));
    }
    dkim(s)?;
    let modes = [("none", SmtpTls::None), ("starttls", SmtpTls::Starttls), ("implicit", SmtpTls::Implicit)];
    Ok(Email {
        host: s.host.clone(),
        port: whole("email.port", s.port, 1, i64::from(u16::MAX))?,
        tls: choice("email.tls", &s.tls, &modes)?,
        ca_file: s.ca_file.clone().into(),
        username: s.username.clone(),
        password: Secret::new(s.password.clone()),
        from: s.from.clone(),
        from_name: s.from_name.clone(),
        timeout: time("email.timeout", &s.timeout, MS)?,
        max_connections: whole("email.max_connections", s.max_connections, 1, 1000)?,
        dkim_domain: s.dkim_domain.clone(),
        dkim_selector: s.dkim_selector.clone(),
        dkim_private_key: Secret::new(s.dkim_private_key.clone()),
    })
}

/// All three keys of DKIM or none: with one missing, mail would go out unsigned and nobody would know.
fn dkim(s: &settings::Email) -> Checked<()> {
    let keys = [
        ("email.dkim_domain", &s.dkim_domain),
        ("email.dkim_selector", &s.dkim_selector),
        ("email.dkim_private_key", &s.dkim_private_key),
    ];
    for (key, text) in keys.iter().take(2) {
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err(fault(key, "is wrong: write letters, digits, `.`, `-` and `_` only"));
        }
    }
    let empty = keys.iter().find(|(_, text)| text.is_empty());
    let set = keys.iter().find(|(_, text)| !text.is_empty());
    match (empty, set) {
        (Some((key, _)), Some((other, _))) => {
            Err(fault(key, format!("is empty, but `{other}` is set; mail is signed with all three keys or not at all")))
        }
        _ => Ok(()),
    }
}

pub(super) fn push(s: &settings::Push) -> Checked<Push> {
    let example = "https://fcm.googleapis.com";
    if !s.vapid_private_key.is_empty() && !["mailto:", "https://"].iter().any(|p| s.vapid_subject.starts_with(p)) {
        let message = "must say whom a push service can turn to: \"mailto:ADDRESS\" or \"https://…\"";
        return Err(fault("push.vapid_subject", message));
    }
    Ok(Push {
        fcm_credentials: s.fcm_credentials.clone().into(),
        fcm_url: url("push.fcm_url", &s.fcm_url, example)?,
        fcm_token_url: match s.fcm_token_url.as_str() {
            "" => String::new(),
            text => url("push.fcm_token_url", text, "https://oauth2.googleapis.com/token")?,
        },
        vapid_private_key: Secret::new(s.vapid_private_key.clone()),
        vapid_subject: s.vapid_subject.clone(),
        ttl: time("push.ttl", &s.ttl, SECOND)?,
        timeout: time("push.timeout", &s.timeout, MS)?,
    })
}

pub(super) fn webhook(s: &settings::Webhook) -> Checked<Webhook> {
    let network = |text: &String| {
        text.parse::<Network>().map_err(|()| {
            let message =
                format!("has \"{text}\", but must be a list of networks such as \"10.1.0.0/16\" or \"fd00::/8\"");
            fault("webhook.allow_networks", message)
        })
    };
    Ok(Webhook {
        allow_http: s.allow_http,
        allow_private: s.allow_private,
        allow_networks: s.allow_networks.iter().map(network).collect::<Checked<_>>()?,
        timeout: time("webhook.timeout", &s.timeout, MS)?,
    })
}

fn one_line(key: &str, text: &str) -> Checked<()> {
    match text.contains(char::is_control) {
        true => Err(fault(key, "must be one line without control characters")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Sources, load, show};

    fn flags(pairs: &[(&str, &str)]) -> Sources {
        let flags = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Sources { flags, ..Sources::default() }
    }

    #[test]
    fn a_wrong_section_is_told_in_one_sentence() {
        for (pairs, part) in [
            (&[("email.host", "h")][..], "`email.from` in the compiled-in defaults is empty, but `email.host` is set"),
            (&[("email.host", "smtp://h")], "`email.host` in the command line is no host name"),
            (&[("email.port", "0")], "must be a number from 1 to 65535"),
            (&[("email.tls", "maybe")], "must be \"none\" or \"starttls\" or \"implicit\""),
            (&[("email.username", "u")], "`email.password` in the compiled-in defaults is empty"),
            (&[("email.password", "hush")], "`email.username` in the compiled-in defaults is empty"),
            (&[("email.dkim_domain", "d")], "`email.dkim_selector` in the compiled-in defaults is empty"),
            (&[("email.dkim_selector", "a b")], "letters, digits"),
            (&[("email.from_name", "a\nb")], "must be one line"),
            (&[("push.fcm_url", "fcm")], "`push.fcm_url` in the command line is not a URL"),
            (&[("push.vapid_private_key", "hush")], "`push.vapid_subject` in the compiled-in defaults must say"),
            (&[("webhook.allow_networks", "10.0.0.0/99")], "must be a list of networks"),
            (&[("webhook.timeout", "0s")], "`webhook.timeout` in the command line is \"0s\""),
        ] {
            let e = load(&flags(pairs)).unwrap_err().to_string();
            assert!(e.contains(part) && !e.contains("hush") && !e.contains('\n'), "{e}");
        }
    }

    #[test]
    fn secrets_are_neither_shown_nor_logged() {
        let secrets = [
            ("email.username", "user"),
            ("email.password", "hush-1"),
            ("email.dkim_domain", "d"),
            ("email.dkim_selector", "s"),
            ("email.dkim_private_key", "hush-2"),
            ("push.vapid_private_key", "hush-3"),
            ("push.vapid_subject", "mailto:a@b.c"),
            ("webhook.allow_networks", "10.0.0.0/8,fd00::/8"),
        ];
        let config = load(&flags(&secrets)).unwrap();
        let shown = show::toml(&config).unwrap();
        let debug = format!("{config:?}");
        assert!(!shown.contains("hush") && !debug.contains("hush"), "{shown}\n{debug}");
        assert!(shown.contains("password = \"***\"\n") && shown.contains("dkim_private_key = \"***\"\n"), "{shown}");
        assert!(shown.contains("vapid_private_key = \"***\"\n"), "{shown}");
        assert!(shown.contains("allow_networks = [\"10.0.0.0/8\", \"fd00::/8\"]\n"), "{shown}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[email]\npassword = 735511\n").unwrap();
        let e = load(&Sources { file: Some(file.path().to_owned()), ..Sources::default() }).unwrap_err().to_string();
        assert!(e.contains("`email.password`") && e.contains("must be text") && !e.contains("735511"), "{e}");
    }

    #[test]
    fn a_secret_is_read_from_a_file_that_the_environment_names() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "line 1\nline 2\n").unwrap();
        let names = [("APP__EMAIL__DKIM_PRIVATE_KEY_FILE", file.path().to_str().unwrap())];
        let more = [("APP__EMAIL__DKIM_DOMAIN", "d"), ("APP__EMAIL__DKIM_SELECTOR", "s")];
        let env = names.iter().chain(&more).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let config = load(&Sources { env, ..Sources::default() }).unwrap();
        assert_eq!(config.email.dkim_private_key.reveal(), "line 1\nline 2");
    }
}
