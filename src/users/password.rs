//! Passwords: hashed with Argon2id on threads that may block, a few at a time.
//!
//! A hash takes 19 MiB and tens of milliseconds by design, so a crowd at the door must neither fill the memory nor hold up
//! the threads that serve requests. Checking against nothing takes as long as against somebody, so that the time does not
//! tell who exists.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::Semaphore;

use super::error::UserError;
use crate::base::secret::Secret;

/// Least characters of a password.
pub const PASSWORD_MIN_CHARS: usize = 8;
/// Most bytes of a password.
pub const PASSWORD_MAX_BYTES: usize = 256;

/// Memory of one hash in KiB, passes over it, and lanes: what OWASP recommends for Argon2id.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// Hashes made at once, at most: 76 MiB.
const AT_ONCE_MAX: usize = 4;
/// Hashes that wait for their turn; beyond, callers are sent away.
const WAITING_MAX: usize = 64;
/// What a password is checked against where there is none. It is the hash of nothing anybody knows.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Makes and checks hashes.
pub(super) struct Passwords {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// Whether it is the right password.
    pub(super) right: bool,
    /// Whether it was hashed at another cost than is used today.
    pub(super) outdated: bool,
}

impl Passwords {
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let turns = Arc::new(Semaphore::new(cores.min(AT_ONCE_MAX)));
        Self { turns, places: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// The hash of a new password, as PHC string.
    pub(super) async fn hash(&self, password: &Secret) -> Result<Secret, UserError> {
        check(password).map_err(|message| UserError::field("password", message))?;
        let password = password.clone();
        self.in_turn(move || {
            let hash = hasher()?.hash_password(password.reveal().as_bytes()).map_err(|e| e.to_string())?;
            Ok(Secret::new(hash.to_string()))
        })
        .await
    }

    /// Whether `password` is the one that `hash` was made of. Takes as long if there is no hash.
    pub(super) async fn check(&self, password: &Secret, hash: Option<&Secret>) -> Result<Checked, UserError> {
        let known = hash.is_some();
        let (password, hash) = (password.clone(), hash.map_or_else(|| Secret::new(NOBODY), Clone::clone));
        self.in_turn(move || {
            // Neither the text nor the error may be told: a hash that is stored wrong is still a secret.
            let hash = PasswordHash::new(hash.reveal()).map_err(|_secret| "a stored password hash cannot be read")?;
            let right = hasher()?.verify_password(password.reveal().as_bytes(), &hash).is_ok() && known;
            let now = hasher()?;
            let outdated = Params::try_from(&hash).is_ok_and(|then| {
                let now = now.params();
                (then.m_cost(), then.t_cost(), then.p_cost()) != (now.m_cost(), now.t_cost(), now.p_cost())
            });
            Ok(Checked { right, outdated })
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, UserError> {
        let _place = self.places.try_acquire().map_err(|_full| UserError::Busy)?;
        // Owned, and given up by the thread: a caller that goes away does not make room for another hash beside its own.
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|e| UserError::Internal(e.to_string()))?;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        let failed = |e: String| UserError::Internal(format!("a password could not be hashed: {e}"));
        done.await.map_err(|e| failed(e.to_string()))?.map_err(failed)
    }
}

fn hasher() -> Result<Argon2<'static>, String> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).map_err(|e| e.to_string())?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Checks the length of a new password; the rest of a sentence that begins with the field's name.
pub(super) fn check(password: &Secret) -> Result<(), String> {
    let text = password.reveal();
    if text.chars().count() < PASSWORD_MIN_CHARS {
        return Err(format!("must have at least {PASSWORD_MIN_CHARS} characters"));
    }
    check_length(text)
}

/// Checks a password that is only compared.
pub(super) fn check_length(text: &str) -> Result<(), String> {
    match text.len() {
        0..=PASSWORD_MAX_BYTES => Ok(()),
        n => Err(format!("has {n} bytes, at most {PASSWORD_MAX_BYTES} are allowed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_alone() {
        let (passwords, right) = (Passwords::new(), Secret::new("correct horse"));
        let hash = passwords.hash(&right).await.unwrap();
        assert!(hash.reveal().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.reveal());
        assert_ne!(passwords.hash(&right).await.unwrap(), hash, "each hash has a salt of its own");
        let yes = Checked { right: true, outdated: false };
        assert_eq!(passwords.check(&right, Some(&hash)).await.unwrap(), yes);
        let wrong = passwords.check(&Secret::new("wrong horse"), Some(&hash)).await.unwrap();
        assert!(!wrong.right && !passwords.check(&right, None).await.unwrap().right);
        let e = passwords.check(&right, Some(&Secret::new("hunter2"))).await.unwrap_err().to_string();
        assert!(!e.contains("hunter2"), "{e}");
    }

    #[tokio::test]
    async fn a_hash_of_another_cost_is_told() {
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(1024, 1, 1, None).unwrap());
        let hash = Secret::new(weak.hash_password(b"correct horse").unwrap().to_string());
        let checked = Passwords::new().check(&Secret::new("correct horse"), Some(&hash)).await.unwrap();
        assert_eq!(checked, Checked { right: true, outdated: true });
    }

    #[tokio::test]
    async fn lengths_hold_at_their_edges() {
        let ok = |text: &str| check(&Secret::new(text)).is_ok();
        assert!(ok("12345678") && !ok("1234567") && ok(&"x".repeat(256)) && !ok(&"x".repeat(257)));
        assert!(!ok(&"ü".repeat(129)) && ok(&"ü".repeat(128)));
        let e = Passwords::new().hash(&Secret::new("short")).await.unwrap_err();
        assert!(matches!(e, UserError::Invalid(f) if f[0].field == "password"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_crowd_is_sent_away_and_not_queued_for_ever() {
        let passwords = Arc::new(Passwords::new());
        let all = (0..WAITING_MAX + 20).map(|_| {
            let passwords = Arc::clone(&passwords);
            tokio::spawn(async move { passwords.check(&Secret::new("x"), None).await })
        });
        let (mut served, mut sent_away) = (0, 0);
        for task in all.collect::<Vec<_>>() {
            match task.await.unwrap() {
                Ok(_) => served += 1,
                Err(UserError::Busy) => sent_away += 1,
                Err(e) => panic!("{e}"),
            }
        }
        assert!(served >= WAITING_MAX && sent_away > 0, "{served} {sent_away}");
        assert_eq!(passwords.places.available_permits(), WAITING_MAX);
    }
}
