//! Signs mail with DKIM (RFC 6376), relaxed in header and body.
//!
//! Own, small code for two reasons: RFC 8058 wants `List-Unsubscribe` and `List-Unsubscribe-Post` under the signature, and the
//! RSA implementation that `lettre` would bring is known to leak its key by timing (RUSTSEC-2023-0071); `ring`'s is not, and
//! is here for TLS anyway.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use sha2::{Digest, Sha256};

use super::super::{OpenError, keys};
use crate::{base::clock::Timestamp, config};

/// What is signed, if it is there; all that a reader sees or a program acts on.
const SIGNED: [&str; 11] = [
    "from",
    "to",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "auto-submitted",
    "list-unsubscribe",
    "list-unsubscribe-post",
];

enum Key {
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

/// A domain's key.
pub(super) struct Signer {
    key: Key,
    domain: String,
    selector: String,
}

impl Signer {
    /// None if the configuration names no domain.
    pub(super) fn new(options: &config::Email) -> Result<Option<Self>, OpenError> {
        if options.dkim_domain.is_empty() {
            return Ok(None);
        }
        let pem = options.dkim_private_key.reveal();
        let wrong = |why| OpenError(format!("`email.dkim_private_key` {why}"));
        let key = match keys::ed25519(pem) {
            Some(key) => Key::Ed25519(key),
            None => Key::Rsa(Box::new(keys::rsa(pem).map_err(wrong)?)),
        };
        let (domain, selector) = (options.dkim_domain.clone(), options.dkim_selector.clone());
        Ok(Some(Self { key, domain, selector }))
    }

    /// The mail with a signature before it.
    pub(super) fn sign(&self, mail: &[u8], at: Timestamp) -> Vec<u8> {
        let text = String::from_utf8_lossy(mail);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let present = headers(head);
        let signed: Vec<&(String, String)> =
            SIGNED.iter().filter_map(|name| present.iter().find(|(n, _)| n == name)).collect();
        let names: Vec<&str> = signed.iter().map(|(name, _)| name.as_str()).collect();
        let algorithm = match self.key {
            Key::Rsa(_) => "rsa-sha256",
            Key::Ed25519(_) => "ed25519-sha256",
        };
        let unsigned = format!(
            "v=1; a={algorithm}; c=relaxed/relaxed; d={}; s={}; t={};\r\n h={};\r\n bh={};\r\n b=",
            self.domain,
            self.selector,
            at.as_millis().div_euclid(1000),
            names.join(":"),
            STANDARD.encode(Sha256::digest(relaxed_body(body))),
        );
        let mut input = String::new();
        for (name, value) in signed {
            input.push_str(&format!("{name}:{value}\r\n"));
        }
        // Its own header comes last, without a value of b= and without an end of line.
        input.push_str(&format!("dkim-signature:{}", relaxed_value(&unsigned)));
        let signature = STANDARD.encode(self.seal(input.as_bytes()));
        let folded: Vec<&str> =
            signature.as_bytes().chunks(72).filter_map(|chunk| std::str::from_utf8(chunk).ok()).collect();
        let mut out = format!("DKIM-Signature: {unsigned}{}\r\n", folded.join("\r\n  ")).into_bytes();
        out.extend_from_slice(mail);
        out
    }

    fn seal(&self, input: &[u8]) -> Vec<u8> {
        match &self.key {
            // Ed25519 signs the hash and not the text (RFC 8463).
            Key::Ed25519(key) => key.sign(&Sha256::digest(input)).as_ref().to_vec(),
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                // It fails only if the system has no randomness; the mail then goes out with a signature that is wrong.
                match key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input, &mut signature) {
                    Ok(()) => signature,
                    Err(_unspecified) => Vec::new(),
                }
            }
        }
    }
}

/// The headers in order: name in lower case, and the value in relaxed form.
fn headers(head: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in head.split("\r\n") {
        match (line.starts_with([' ', '\t']), found.last_mut()) {
            (true, Some((_, value))) => value.push_str(line),
            _ => {
                if let Some((name, value)) = line.split_once(':') {
                    found.push((name.trim().to_ascii_lowercase(), value.to_owned()));
                }
            }
        }
    }
    for (_, value) in &mut found {
        *value = relaxed_value(value);
    }
    found
}

/// Unfolded, white space in one place as one space, none at the ends.
fn relaxed_value(value: &str) -> String {
    value.split([' ', '\t', '\r', '\n']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// White space as one space, none at the end of a line, and no empty lines at the end.
fn relaxed_body(body: &str) -> String {
    let mut out = String::with_capacity(body.len() + 2);
    for line in body.split("\r\n") {
        let mut space = false;
        for c in line.chars() {
            match c {
                ' ' | '\t' => space = true,
                c => {
                    if std::mem::take(&mut space) {
                        out.push(' ');
                    }
                    out.push(c);
                }
            }
        }
        out.push_str("\r\n");
    }
    let end = out.trim_end_matches("\r\n").len();
    match end {
        0 => String::new(),
        _ => format!("{}\r\n", out.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6376, section 3.4.5.
    #[test]
    fn relaxed_is_as_the_standard_says() {
        assert_eq!(headers("A: X\r\nB : Y\t\r\n\tZ  "), [("a".into(), "X".into()), ("b".into(), "Y Z".into())]);
        assert_eq!(relaxed_body(" C \r\nD \t E\r\n\r\n\r\n"), " C\r\nD E\r\n");
        assert_eq!((relaxed_body(""), relaxed_body("\r\n")), (String::new(), String::new()));
    }
}
