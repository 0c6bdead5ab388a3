//! Encrypts for one subscription: RFC 8291 over RFC 8188 (`aes128gcm`), in one record.

use p256::{
    PublicKey, SecretKey,
    elliptic_curve::{Generate, sec1::ToSec1Point},
};
use ring::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Salt},
    rand::{SecureRandom, SystemRandom},
};

use super::{super::SendError, super::webhook::no_randomness, decode};

/// Push services take at least this much, and many no more.
const RECORD: usize = 4096;
/// Salt, record size, length of the key, the key.
const HEADER: usize = 16 + 4 + 1 + 65;
/// The mark of the last record, and the seal.
const SEAL: usize = 1 + 16;
/// Most bytes of a message.
pub(super) const PLAIN_MAX: usize = RECORD - HEADER - SEAL;

/// A browser's keys.
pub(super) struct Subscription {
    public: PublicKey,
    auth: Vec<u8>,
}

impl Subscription {
    pub(super) fn read(p256dh: &str, auth: &str) -> Result<Self, &'static str> {
        let public = decode(p256dh).and_then(|bytes| PublicKey::from_sec1_bytes(&bytes).ok());
        let public = public.ok_or("has a p256dh that is no public key in base64url")?;
        let auth = decode(auth).filter(|a| a.len() == 16).ok_or("has an auth that is not 16 bytes in base64url")?;
        Ok(Self { public, auth })
    }

    /// Encrypts with a key made for this message alone.
    pub(super) fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, SendError> {
        let mut salt = [0; 16];
        SystemRandom::new().fill(&mut salt).map_err(|_unspecified| no_randomness())?;
        let key = SecretKey::try_generate().map_err(|_no_entropy| no_randomness())?;
        // It fails for messages far beyond the limit only.
        self.seal_with(&key, salt, plain).ok_or_else(no_randomness)
    }

    fn seal_with(&self, key: &SecretKey, salt: [u8; 16], plain: &[u8]) -> Option<Vec<u8>> {
        let ours = key.public_key().to_sec1_point(false);
        let theirs = self.public.to_sec1_point(false);
        let shared = key.diffie_hellman(&self.public);
        let context = [b"WebPush: info\0".as_slice(), theirs.as_bytes(), ours.as_bytes()].concat();
        let ikm: [u8; 32] = derive(&self.auth, shared.raw_secret_bytes(), &context)?;
        let content_key: [u8; 16] = derive(&salt, &ikm, b"Content-Encoding: aes128gcm\0")?;
        let nonce: [u8; 12] = derive(&salt, &ikm, b"Content-Encoding: nonce\0")?;

        let mut record = [plain, &[2]].concat();
        let aead = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &content_key).ok()?);
        aead.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut record).ok()?;
        let size = u32::try_from(RECORD).ok()?.to_be_bytes();
        Some([&salt, size.as_slice(), &[65], ours.as_bytes(), &record].concat())
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive<const N: usize>(salt: &[u8], secret: &[u8], info: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    let prk = Salt::new(HKDF_SHA256, salt).extract(secret);
    prk.expand(&[info], Length(N)).ok()?.fill(&mut out).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    /// The example of RFC 8291, section 5 and appendix A.
    #[test]
    fn it_encrypts_as_the_standard_does() {
        let p256dh = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
        let to = Subscription::read(p256dh, "BTBZMqHH6r4Tts7J_aSIgg").unwrap();
        let key = decode("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw").unwrap();
        let key = SecretKey::from_slice(&key).unwrap();
        let salt = decode("DGv6ra1nlYgDCS1FRnbzlw").unwrap().try_into().unwrap();
        let sealed = to.seal_with(&key, salt, b"When I grow up, I want to be a watermelon").unwrap();
        assert_eq!(
            URL_SAFE_NO_PAD.encode(sealed),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A\
             _yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
        );
        assert_eq!(to.seal(&vec![b'x'; PLAIN_MAX]).unwrap().len(), RECORD);
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        let good = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
        assert!(Subscription::read(good, "BTBZMqHH6r4Tts7J_aSIgg==").is_ok());
        // The last one is a point that does not lie on the curve.
        for (key, auth) in
            [("", "BTBZMqHH6r4Tts7J_aSIgg"), ("!", "x"), (good, "BTBZ"), (&good.replace("AIiw4", "AIiw8"), "")]
        {
            assert!(Subscription::read(key, auth).is_err(), "{key} {auth}");
        }
    }
}
