//! What is said on a new connection before it is anybody's: who knows the key.
//!
//! ```text
//! listener, with a key      client                                  listener, without one      client
//! Challenge(a)          →                                           Welcome(nothing)       →
//!                       ←   Answer(b, HMAC(key, "client", a, b))                           ←   Agreed
//! Welcome(HMAC(key, "listener", b, a)) →
//!                       ←   Agreed
//! ```
//! Either says `Refused` instead, and both know that it failed. HMAC-SHA-256; the nonces are random, 32 bytes each. The words
//! in front differ, so that no answer can be sent back to whoever gave it.

use super::connection::Connection;
use super::port::Patience;
use crate::error::{ChannelError, Result};
use crate::segment::random;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

type Nonce = [u8; 32];

/// What is said.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    Challenge(Nonce),
    Answer(Nonce, [u8; 32]),
    Welcome(Option<[u8; 32]>),
    Agreed,
    Refused,
}

fn failed<R>(why: &'static str) -> Result<R> {
    Err(ChannelError::Authentication { why }.into())
}

fn proof(key: &[u8], who: &'static str, theirs: &Nonce, own: &Nonce) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(b"shmkit connection, ");
    mac.update(who.as_bytes());
    mac.update(theirs);
    mac.update(own);
    mac
}

fn bytes(proof: Hmac<Sha256>) -> [u8; 32] {
    proof.finalize().into_bytes().into()
}

fn nonce() -> Nonce {
    let mut nonce = [0; 32];
    random(&mut nonce);
    nonce
}

/// Says no, and why it does: whoever is there no more need not hear it.
fn refuse<R>(connection: &Connection, why: &'static str) -> Result<R> {
    let _ = connection.send(&Word::Refused);
    failed(why)
}

/// The listener's part.
///
/// # Errors
/// `Authentication`; and whatever ends a conversation with somebody who dies, or says nothing for too long.
pub(super) fn welcome(connection: &Connection, key: Option<&[u8]>, patience: Patience) -> Result<()> {
    let hear = || connection.recv_unless::<Word>(patience, || false);
    let welcome = match key {
        None => None,
        Some(key) => {
            let challenge = nonce();
            connection.send(&Word::Challenge(challenge))?;
            failpoint!("listener.challenged");
            let (theirs, answer) = match hear()? {
                Word::Answer(theirs, answer) => (theirs, answer),
                Word::Refused => return failed("the client does not use a key"),
                _ => return refuse(connection, "the client does not answer the challenge"),
            };
            // In constant time.
            if proof(key, "client", &challenge, &theirs).verify_slice(&answer).is_err() {
                return refuse(connection, "the client has another key");
            }
            Some(bytes(proof(key, "listener", &theirs, &challenge)))
        }
    };
    connection.send(&Word::Welcome(welcome))?;
    failpoint!("listener.welcomed");
    match hear()? {
        Word::Agreed => Ok(()),
        _ => failed("the client expects another key"),
    }
}

/// The client's part; `is_over` says that the listener has gone.
///
/// # Errors
/// As [`welcome`].
pub(super) fn introduce(
    connection: &Connection,
    key: Option<&[u8]>,
    patience: Patience,
    is_over: impl Fn() -> bool,
) -> Result<()> {
    let hear = || connection.recv_unless::<Word>(patience, &is_over);
    let own = nonce();
    let mut word = hear()?;
    let mut expected = None;
    if let Word::Challenge(challenge) = word {
        let Some(key) = key else { return refuse(connection, "the listener asks for a key") };
        connection.send(&Word::Answer(own, bytes(proof(key, "client", &challenge, &own))))?;
        failpoint!("client.answered");
        expected = Some(proof(key, "listener", &own, &challenge));
        word = hear()?;
    }
    match (word, expected) {
        (Word::Welcome(Some(given)), Some(expected)) if expected.clone().verify_slice(&given).is_ok() => {}
        (Word::Welcome(None), None) if key.is_none() => {}
        (Word::Refused, _) => return failed("the listener has another key"),
        (Word::Welcome(None), None) => return refuse(connection, "the listener does not use a key"),
        _ => return refuse(connection, "the listener cannot prove that it has the key"),
    }
    connection.send(&Word::Agreed)?;
    failpoint!("client.agreed");
    Ok(())
}
