//! Reads private keys from PEM.

use ring::signature::{Ed25519KeyPair, RsaKeyPair};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};

/// An RSA key of 2048 bits or more.
///
/// # Errors
/// The rest of a sentence that begins with the name of the key's place.
pub(super) fn rsa(pem: &str) -> Result<RsaKeyPair, &'static str> {
    let wrong = "holds no private key that can be used; it must be PEM: RSA of 2048 bits or more";
    match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
        Ok(PrivateKeyDer::Pkcs8(der)) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_rejected| wrong),
        Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der()).map_err(|_rejected| wrong),
        _ => Err(wrong),
    }
}

/// An Ed25519 key, if it is one.
pub(super) fn ed25519(pem: &str) -> Option<Ed25519KeyPair> {
    match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
        Ok(PrivateKeyDer::Pkcs8(der)) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).ok(),
        _ => None,
    }
}
