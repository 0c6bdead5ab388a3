//! Access tokens: JSON Web Tokens (RFC 7519), signed with HS256 and nothing else.
//!
//! Written out here because a library's choice of algorithms is the classic hole: no field of a token decides how it is
//! checked, but for the name of the key. A token says who was logged in when; what that user may do is looked up.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    error::{Refusal, UserError},
    model::{Role, User},
};
use crate::{
    base::{clock::Timestamp, id::UserId, secret::Secret},
    config::{Auth, JwtKey},
};

/// The one algorithm.
const ALGORITHM: &str = "HS256";
/// Longest token that is looked at.
const LENGTH_MAX: usize = 4096;
/// By how much the clock of the process that made a token may be ahead.
const AHEAD_MAX: i64 = 60;
/// Random bytes of a key that a process makes for itself.
const KEY_BYTES: usize = 32;
/// Name of such a key.
const OWN_KEY: &str = "process";

/// Makes and checks tokens.
pub(super) struct Tokens {
    issuer: String,
    audience: String,
    ttl: Duration,
    /// The first one signs. Never empty.
    first: JwtKey,
    others: Vec<JwtKey>,
}

/// What a token that was checked says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) user: UserId,
    pub(super) session: u64,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
    /// Says that something must be understood that is not understood here.
    crit: Option<Value>,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: Value,
    sub: UserId,
    role: Role,
    /// Number of the user's session: see [`User::session`].
    sid: u64,
    iat: i64,
    exp: i64,
}

impl Tokens {
    /// Signs with the first of the configured keys; without any, with one that ends with this process.
    pub(super) fn new(auth: &Auth) -> Result<Self, String> {
        let (first, others) = match auth.jwt_keys.split_first() {
            Some((first, others)) => (first.clone(), others.to_vec()),
            None => (own_key()?, Vec::new()),
        };
        let (issuer, audience) = (auth.issuer.clone(), auth.audience.clone());
        Ok(Self { issuer, audience, ttl: auth.token_ttl, first, others })
    }

    /// How long a token is good.
    pub(super) const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// A token for `user`.
    pub(super) fn issue(&self, user: &User, now: Timestamp) -> Result<Secret, UserError> {
        let iat = now.as_millis().div_euclid(1000);
        let exp = iat.saturating_add(i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX));
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: Value::from(self.audience.as_str()),
            sub: user.id,
            role: user.role,
            sid: user.session,
            iat,
            exp,
        };
        let header = json!({ "alg": ALGORITHM, "typ": "JWT", "kid": self.first.kid });
        let failed = |e: String| UserError::Internal(format!("a token could not be made: {e}"));
        let part = |json: serde_json::Result<Vec<u8>>| {
            json.map(|json| BASE64_URL_SAFE_NO_PAD.encode(json)).map_err(|e| failed(e.to_string()))
        };
        let signed = format!("{}.{}", part(serde_json::to_vec(&header))?, part(serde_json::to_vec(&claims))?);
        let mac = mac(&self.first, &signed).ok_or_else(|| failed("the key is unusable".to_owned()))?;
        let signature = BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        Ok(Secret::new(format!("{signed}.{signature}")))
    }

    /// What `token` says, if it is ours and good at this time.
    pub(super) fn check(&self, token: &str, now: Timestamp) -> Result<Claimed, Refusal> {
        let claims = self.signed(token).ok_or(Refusal::Invalid)?;
        let now = now.as_millis().div_euclid(1000);
        let for_us = match &claims.aud {
            Value::String(one) => *one == self.audience,
            Value::Array(several) => several.iter().any(|one| *one == self.audience.as_str()),
            _ => false,
        };
        if claims.iss != self.issuer || !for_us || claims.iat > now.saturating_add(AHEAD_MAX) {
            return Err(Refusal::Invalid);
        }
        if claims.exp <= now {
            return Err(Refusal::Expired);
        }
        Ok(Claimed { user: claims.sub, session: claims.sid })
    }

    /// The claims, if one of our keys signed them.
    fn signed(&self, token: &str) -> Option<Claims> {
        if token.len() > LENGTH_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        if header.alg != ALGORITHM || header.crit.is_some() {
            return None;
        }
        let key = std::iter::once(&self.first).chain(&self.others).find(|key| key.kid == header.kid)?;
        // Compares in a time that tells nothing.
        mac(key, signed)?.verify_slice(&decode(signature)?).ok()?;
        serde_json::from_slice(&decode(claims)?).ok()
    }
}

fn mac(key: &JwtKey, signed: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.secret.reveal().as_bytes()).ok()?;
    mac.update(signed.as_bytes());
    Some(mac)
}

fn own_key() -> Result<JwtKey, String> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|e| format!("the system gives no random bytes: {e}"))?;
    Ok(JwtKey { kid: OWN_KEY.to_owned(), secret: Secret::new(BASE64_URL_SAFE_NO_PAD.encode(bytes)) })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{config, users::model::NewUser};

    fn key(kid: &str) -> JwtKey {
        JwtKey { kid: kid.to_owned(), secret: Secret::new(kid.repeat(32)) }
    }

    fn tokens(issuer: &str, audience: &str, keys: &[&str]) -> Tokens {
        let mut auth = config::load(&config::Sources::default()).unwrap().auth;
        auth.issuer = issuer.to_owned();
        auth.audience = audience.to_owned();
        auth.jwt_keys = keys.iter().map(|kid| key(kid)).collect();
        Tokens::new(&auth).unwrap()
    }

    fn user() -> User {
        let new = NewUser { email: "a@b.cd".to_owned(), name: "A".to_owned(), ..NewUser::default() };
        new.build(Uuid::from_u128(7), Timestamp::default(), &crate::base::zone::Zones::bundled()).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    fn forged(header: &Value, claims: &Value, secret: &JwtKey) -> String {
        let part = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(mac(secret, &signed).unwrap().finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    #[test]
    fn a_token_holds_for_its_time() {
        let t = tokens("app", "app", &["a"]);
        let token = t.issue(&user(), at(0)).unwrap();
        let claimed = Claimed { user: user().id, session: 1 };
        assert_eq!(t.check(token.reveal(), at(0)), Ok(claimed));
        assert_eq!(t.check(token.reveal(), at(3599)), Ok(claimed));
        assert_eq!(t.check(token.reveal(), at(3600)), Err(Refusal::Expired));
        assert_eq!(t.check(token.reveal(), at(-60)), Ok(claimed), "clocks may differ by a minute");
        assert_eq!(t.check(token.reveal(), at(-61)), Err(Refusal::Invalid));
        assert_eq!(format!("{token:?}"), "***");
    }

    #[test]
    fn keys_are_rotated_by_name() {
        let (old, both, new) = (tokens("i", "a", &["x"]), tokens("i", "a", &["y", "x"]), tokens("i", "a", &["y"]));
        let token = old.issue(&user(), at(0)).unwrap();
        assert!(both.check(token.reveal(), at(1)).is_ok());
        assert_eq!(new.check(token.reveal(), at(1)), Err(Refusal::Invalid));
        let token = both.issue(&user(), at(0)).unwrap();
        assert!(new.check(token.reveal(), at(1)).is_ok(), "the first one signs");
        assert_eq!(old.check(token.reveal(), at(1)), Err(Refusal::Invalid));
        // A process's own key is no other's.
        let (one, two) = (tokens("i", "a", &[]), tokens("i", "a", &[]));
        let token = one.issue(&user(), at(0)).unwrap();
        assert!(one.check(token.reveal(), at(1)).is_ok() && two.check(token.reveal(), at(1)).is_err());
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let t = tokens("app", "app", &["a"]);
        let header = json!({"alg": "HS256", "typ": "JWT", "kid": "a"});
        let claims = json!({"iss": "app", "aud": ["x", "app"], "sub": user().id, "role": "user", "sid": 1,
            "iat": 1_800_000_000, "exp": 1_800_003_600});
        assert!(t.check(&forged(&header, &claims, &key("a")), at(0)).is_ok());
        let with = |base: &Value, name: &str, value: Value| {
            let mut changed = base.clone();
            changed[name] = value;
            changed
        };
        let (none, crit) = (with(&header, "alg", "none".into()), with(&header, "crit", json!(["b64"])));
        let mut bad = vec![
            forged(&none, &claims, &key("a")),
            forged(&none, &claims, &key("a")).rsplit_once('.').unwrap().0.to_owned() + ".",
            forged(&with(&header, "alg", "HS512".into()), &claims, &key("a")),
            forged(&with(&header, "alg", "RS256".into()), &claims, &key("a")),
            forged(&crit, &claims, &key("a")),
            forged(&with(&header, "kid", "b".into()), &claims, &key("a")),
            forged(&json!({"alg": "HS256"}), &claims, &key("a")),
            forged(&header, &claims, &key("b")),
            forged(&header, &json!({}), &key("a")),
            forged(&header, &json!("text"), &key("a")),
            String::new(),
            "a.b".to_owned(),
            "..".to_owned(),
            "a.b.c.d".to_owned(),
            "ü.ü.ü".to_owned(),
            "x".repeat(LENGTH_MAX + 1),
        ];
        for (name, value) in [
            ("iss", json!("other")),
            ("aud", json!("other")),
            ("aud", json!(["other"])),
            ("aud", Value::Null),
            ("sub", json!("root")),
            ("exp", json!("never")),
        ] {
            bad.push(forged(&header, &with(&claims, name, value), &key("a")));
        }
        let good = forged(&header, &claims, &key("a"));
        bad.push(good.replace('.', ".."));
        bad.push(format!("{good}A"));
        for token in bad {
            assert_eq!(t.check(&token, at(0)), Err(Refusal::Invalid), "{token}");
        }
    }
}
