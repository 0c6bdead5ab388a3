//! What the texts about a user must look like, and the one spelling in which each is kept.
//!
//! Each check answers the rest of a sentence that begins with the field's name.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::Url;

use crate::base::zone::Zones;

/// Most characters of an e-mail address.
pub const EMAIL_MAX: usize = 254;
/// Most characters of an e-mail address before its `@`.
const EMAIL_LOCAL_MAX: usize = 64;
/// Most characters of a name or label.
pub const NAME_MAX: usize = 200;
/// Most characters of a language tag.
pub const LOCALE_MAX: usize = 35;
/// Most characters of a URL.
pub const URL_MAX: usize = 2048;
/// Most characters of a device's registration token.
pub const FCM_TOKEN_MAX: usize = 4096;
/// Most characters of a part of a browser's subscription, before it is decoded.
const SUBSCRIPTION_PART_MAX: usize = 256;

/// An e-mail address in lower case.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn email(text: &str) -> Result<String, String> {
    let wrong = || "must be an e-mail address such as ada@example.com, in ASCII".to_owned();
    within(text, EMAIL_MAX)?;
    let (local, domain) = text.rsplit_once('@').ok_or_else(wrong)?;
    let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b);
    let local_right = local.len() <= EMAIL_LOCAL_MAX && local.split('.').all(|p| !p.is_empty() && p.bytes().all(atom));
    let label = |l: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&l.len()) && l.bytes().all(inner) && !l.starts_with('-') && !l.ends_with('-')
    };
    let domain_right = domain.contains('.') && domain.split('.').all(label);
    if local_right && domain_right { Ok(text.to_ascii_lowercase()) } else { Err(wrong()) }
}

/// A name or label: not blank, no control characters.
pub(super) fn name(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("must not be blank".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("must not contain control characters".to_owned());
    }
    within(text, NAME_MAX)
}

/// A language tag (BCP 47) with its parts in the case that is usual for them.
pub(super) fn locale(text: &str) -> Result<String, String> {
    let wrong = || "must be a language tag such as en or pt-BR".to_owned();
    within(text, LOCALE_MAX)?;
    let mut parts = text.split('-');
    let language = parts.next().filter(|l| matches!(l.len(), 2 | 3 | 5..=8)).ok_or_else(wrong)?;
    if !language.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err(wrong());
    }
    let mut out = language.to_ascii_lowercase();
    for part in parts {
        if !(1..=8).contains(&part.len()) || !part.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(wrong());
        }
        out.push('-');
        let letters = part.bytes().all(|b| b.is_ascii_alphabetic());
        match (part.len(), letters) {
            (2, true) => out.push_str(&part.to_ascii_uppercase()),
            (4, true) => {
                let (first, rest) = part.split_at(1);
                out.push_str(&first.to_ascii_uppercase());
                out.push_str(&rest.to_ascii_lowercase());
            }
            _ => out.push_str(&part.to_ascii_lowercase()),
        }
    }
    Ok(out)
}

/// The name of a time zone as IANA spells it.
pub(super) fn time_zone(text: &str, zones: &Zones) -> Result<String, String> {
    let named = zones.get(text).and_then(|zone| zone.iana_name().map(str::to_owned));
    named.ok_or_else(|| "must be the IANA name of a time zone, such as Europe/Berlin".to_owned())
}

/// A URL that messages are sent to, as it is written to the wire. Where it leads is checked when it is connected to.
pub(super) fn url(text: &str, schemes: &[&str]) -> Result<String, String> {
    let wrong = || format!("must be a URL that begins with {}://, without user or fragment", schemes.join(":// or "));
    within(text, URL_MAX)?;
    let url = Url::parse(text).map_err(|_unreadable| wrong())?;
    let right = schemes.contains(&url.scheme())
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none();
    let written: String = url.into();
    within(&written, URL_MAX)?;
    if right && !text.chars().any(|c| c.is_control() || c.is_whitespace()) { Ok(written) } else { Err(wrong()) }
}

/// A device's registration token.
pub(super) fn fcm_token(text: &str) -> Result<(), String> {
    within(text, FCM_TOKEN_MAX)?;
    match !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(()),
        false => Err("must be visible ASCII characters without spaces".to_owned()),
    }
}

/// A browser's public key: an uncompressed point of P-256. Padding is taken off.
pub(super) fn p256dh(text: &str) -> Result<String, String> {
    part(text, 65, |bytes| bytes.first() == Some(&4), "the browser's public key: 65 bytes that begin with 4")
}

/// A browser's authentication secret. Padding is taken off.
pub(super) fn auth_secret(text: &str) -> Result<String, String> {
    part(text, 16, |_| true, "the browser's authentication secret: 16 bytes")
}

fn part(text: &str, len: usize, right: impl Fn(&[u8]) -> bool, what: &str) -> Result<String, String> {
    let bare = text.trim_end_matches('=');
    let bytes = (text.len() <= SUBSCRIPTION_PART_MAX).then(|| BASE64_URL_SAFE_NO_PAD.decode(bare).ok()).flatten();
    match bytes {
        Some(bytes) if bytes.len() == len && right(&bytes) => Ok(bare.to_owned()),
        _ => Err(format!("must be {what}, in base64url")),
    }
}

fn within(text: &str, max: usize) -> Result<(), String> {
    let n = text.chars().count();
    if n > max { Err(format!("has {n} characters, at most {max} are allowed")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_spelling() {
        assert_eq!(email("Ada.Lovelace+x@Example.COM").unwrap(), "ada.lovelace+x@example.com");
        let long = |local: usize, domain: usize| {
            format!("{}@{}.com", "a".repeat(local), vec!["b".repeat(63); domain].join("."))
        };
        assert!(email(&long(64, 2)).is_ok() && email(&long(65, 1)).is_err() && email(&long(64, 3)).is_err());
        for bad in [
            "",
            "@",
            "a@",
            "@b.c",
            "a@b",
            "a b@c.de",
            "a@b..c",
            "a@-b.c",
            ".a@b.c",
            "a.@b.c",
            "ü@b.c",
            "a@ü.de",
            "a@b.c\n",
            "a@b@c.de",
            "<a@b.c>",
            "a@b.c.",
            "\"a\"@b.c",
        ] {
            assert!(email(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn languages_and_zones_are_checked_and_spelt_as_usual() {
        for (given, kept) in [("EN", "en"), ("pt-br", "pt-BR"), ("ZH-hant-tw", "zh-Hant-TW"), ("de-1996", "de-1996")] {
            assert_eq!(locale(given).unwrap(), kept);
        }
        for bad in ["", "e", "engl", "en_US", "en-", "-en", "en-toolongpart", "e1", &"en-abcdefgh".repeat(4)] {
            assert!(locale(bad).is_err(), "{bad:?}");
        }
        for (given, kept) in
            [("Europe/Berlin", "Europe/Berlin"), ("america/new_york", "America/New_York"), ("UTC", "UTC")]
        {
            assert_eq!(time_zone(given, &Zones::bundled()).unwrap(), kept);
        }
        for bad in
            ["", "Berlin", "+02:00", "Europe/Atlantis", "../../etc/passwd", "/etc/localtime", "Etc/Unknown", "a\0b"]
        {
            assert!(time_zone(bad, &Zones::bundled()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn urls_and_keys_are_checked() {
        let both = ["https", "http"];
        assert_eq!(
            url("HTTPS://Example.com:443/a b".replace(' ', "").as_str(), &both).unwrap(),
            "https://example.com/ab"
        );
        for bad in ["", "x", "ftp://h/", "https://u:p@h/", "https://h/#f", "https://", "mailto:a@b.c", "https://h/a b"]
        {
            assert!(url(bad, &both).is_err(), "{bad:?}");
        }
        assert!(
            url("http://h/", &["https"]).is_err() && url(&format!("https://h/{}", "x".repeat(2040)), &both).is_err()
        );
        let mut key = [7_u8; 65];
        key[0] = 4;
        let text = BASE64_URL_SAFE_NO_PAD.encode(key);
        assert_eq!(p256dh(&format!("{text}=")).unwrap(), text);
        assert!(p256dh(&BASE64_URL_SAFE_NO_PAD.encode([7_u8; 65])).is_err() && p256dh("").is_err());
        assert!(auth_secret(&BASE64_URL_SAFE_NO_PAD.encode([0; 16])).is_ok());
        assert!(auth_secret(&BASE64_URL_SAFE_NO_PAD.encode([0; 15])).is_err() && auth_secret("+").is_err());
        assert!(fcm_token("abc:def-1").is_ok() && fcm_token("").is_err() && fcm_token("a b").is_err());
        assert!(fcm_token(&"x".repeat(4097)).is_err());
        assert!(name(&"ü".repeat(200)).is_ok() && name(&"x".repeat(201)).is_err() && name(" ").is_err());
        assert!(name("a\nb").is_err());
    }
}
