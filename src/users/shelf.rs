//! How users and keys are written to records, and read again.
//!
//! The version of each shape is written with it: what an older program wrote must still be read.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    access::Scope,
    error::UserError,
    key::ApiKey,
    model::{Kept, User},
};
use crate::{
    base::{
        clock::Timestamp,
        id::{KeyId, UserId},
        secret::Secret,
        store::StoreError,
    },
    records::{Record, Shelf},
};

/// The version of both shapes that is written today.
const VERSION: u8 = 1;

/// A user and what proves to be that user.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Account {
    pub(super) user: User,
    /// As PHC string.
    pub(super) password: Option<Secret>,
}

#[derive(Serialize, Deserialize)]
struct AccountBody {
    v: u8,
    user: Kept,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

impl Account {
    /// The name by which a user with this address is found.
    pub(super) fn name_of(email: &str) -> String {
        format!("email:{email}")
    }

    pub(super) fn record(&self) -> Result<Record, UserError> {
        let user = &self.user;
        let password = self.password.as_ref().map(|hash| hash.reveal().to_owned());
        let body = AccountBody { v: VERSION, user: Kept(user.clone()), password };
        Ok(Record {
            shelf: Shelf::Users,
            id: user.id.0,
            version: user.version,
            names: vec![Self::name_of(&user.email)],
            labels: vec![format!("role:{}", user.role.as_str())],
            created_at: user.created_at,
            updated_at: user.updated_at,
            expires_at: None,
            body: written(&body)?,
        })
    }

    pub(super) fn of(record: Record) -> Result<Self, StoreError> {
        let AccountBody { v: _, user: Kept(user), password } = read(record.id, record.body)?;
        let (id, version, updated_at) = (UserId(record.id), record.version, record.updated_at);
        Ok(Self { user: User { id, version, updated_at, ..user }, password: password.map(Secret::new) })
    }
}

#[derive(Serialize, Deserialize)]
struct KeyBody {
    v: u8,
    name: String,
    scopes: Vec<Scope>,
    digest: String,
}

impl ApiKey {
    pub(super) fn record(&self) -> Result<Record, UserError> {
        let body =
            KeyBody { v: VERSION, name: self.name.clone(), scopes: self.scopes.clone(), digest: self.digest.clone() };
        Ok(Record {
            shelf: Shelf::ApiKeys,
            id: self.id.0,
            version: 1,
            names: Vec::new(),
            labels: Vec::new(),
            created_at: self.created_at,
            updated_at: self.created_at,
            expires_at: self.expires_at,
            body: written(&body)?,
        })
    }

    pub(super) fn of(record: Record) -> Result<Self, StoreError> {
        let KeyBody { v: _, name, scopes, digest } = read(record.id, record.body)?;
        let (created_at, expires_at): (Timestamp, _) = (record.created_at, record.expires_at);
        Ok(Self { id: KeyId(record.id), name, scopes, digest, created_at, expires_at })
    }
}

fn written(body: &impl Serialize) -> Result<serde_json::Value, UserError> {
    serde_json::to_value(body).map_err(|e| UserError::Internal(format!("a record cannot be written: {e}")))
}

fn read<T: DeserializeOwned>(id: Uuid, body: serde_json::Value) -> Result<T, StoreError> {
    serde_json::from_value(body).map_err(|e| StoreError::Corrupt(format!("record {id}: {e}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(shelf: Shelf, body: serde_json::Value) -> Record {
        let at = Timestamp::from_millis(1_800_000_000_000);
        let (names, labels) = (Vec::new(), Vec::new());
        Record {
            shelf,
            id: Uuid::from_u128(7),
            version: 3,
            names,
            labels,
            created_at: at,
            updated_at: at,
            expires_at: None,
            body,
        }
    }

    #[test]
    fn what_version_1_wrote_is_read() {
        let id = Uuid::from_u128(7);
        let body = json!({"v": 1, "password": "$argon2id$x", "user": {
            "id": id, "email": "ada@example.com", "name": "Ada", "role": "admin", "disabled": true, "locale": "pt-BR",
            "time_zone": "Europe/Berlin",
            "preferences": {"email": true, "push": false, "webhook": true, "console": true,
                "categories": {"billing": {"push": true}}, "quiet_hours": {"start": "22:00", "end": "07:00"}},
            "push_tokens": [{"id": id, "kind": "fcm", "token": "t", "label": "phone", "created_at": "2026-11-21T08:00:00.000Z"},
                {"id": id, "kind": "web_push", "endpoint": "https://p/", "p256dh": "k", "auth": "a",
                    "created_at": "2026-11-21T08:00:00.000Z"}],
            "endpoints": [{"id": id, "url": "https://h/", "secrets": ["whsec_a", "whsec_b"], "disabled": false,
                "created_at": "2026-11-21T08:00:00.000Z"}],
            "session": 2, "created_at": "2026-11-21T08:00:00.000Z", "updated_at": "2026-11-21T08:00:00.000Z", "version": 3,
        }});
        let account = Account::of(record(Shelf::Users, body.clone())).unwrap();
        assert_eq!((account.user.id, account.user.version, account.user.session), (UserId(id), 3, 2));
        let again = account.record().unwrap();
        assert_eq!(
            (again.names, again.labels),
            (vec!["email:ada@example.com".to_owned()], vec!["role:admin".to_owned()])
        );
        let mut expected = body;
        expected["user"]["updated_at"] = json!("2027-01-15T08:00:00.000Z");
        assert_eq!(again.body, expected);

        let body = json!({"v": 1, "name": "ci", "scopes": ["items:read", "admin"], "digest": "ab"});
        let key = ApiKey::of(record(Shelf::ApiKeys, body.clone())).unwrap();
        assert_eq!(key.record().unwrap().body, body);
        assert!(matches!(ApiKey::of(record(Shelf::ApiKeys, json!({}))), Err(StoreError::Corrupt(_))));
    }
}
