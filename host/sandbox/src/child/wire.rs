//! What the agent and the compiler's process say to each other. Both are the same executable; the form is checked all the same, because
//! an executable can be replaced while the agent runs.

use std::io::{self, Read, Write};

use crate::compiled::EngineId;

/// Begins the request; its last byte is the form's version.
const REQUEST: [u8; 16] = *b"otahost compile\x01";
/// Begins the answer.
const ANSWER: [u8; 16] = *b"otahost code\0\0\0\x01";
/// Longest sentence in an answer.
pub(super) const MAX_SENTENCE: usize = 4096;
/// Bytes of an answer besides its code.
pub(super) const FRAME: usize = 16 + 1 + 32 + 8;

/// What the process may use, and how long the component is that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) memory: u64,
    pub(super) cpu_seconds: u64,
    pub(super) length: u64,
}

impl Request {
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&REQUEST)?;
        for number in [self.memory, self.cpu_seconds, self.length] {
            to.write_all(&number.to_be_bytes())?;
        }
        Ok(())
    }

    pub(super) fn read(from: &mut impl Read) -> io::Result<Request> {
        let mut magic = [0; 16];
        from.read_exact(&mut magic)?;
        if magic != REQUEST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "this is no request of the agent",
            ));
        }
        let mut number = || -> io::Result<u64> {
            let mut bytes = [0; 8];
            from.read_exact(&mut bytes)?;
            Ok(u64::from_be_bytes(bytes))
        };
        Ok(Request {
            memory: number()?,
            cpu_seconds: number()?,
            length: number()?,
        })
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The code, and the engine that made it.
    Code(EngineId, Vec<u8>),
    /// The component is at fault, in these words.
    Invalid(String),
    /// The memory did not suffice.
    Memory,
    /// The process is at fault, in these words.
    Unable(String),
}

impl Answer {
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let (word, engine, body): (u8, EngineId, &[u8]) = match self {
            Answer::Code(engine, code) => (0, *engine, code),
            Answer::Invalid(why) => (1, [0; 32], why.as_bytes()),
            Answer::Memory => (2, [0; 32], &[]),
            Answer::Unable(why) => (3, [0; 32], why.as_bytes()),
        };
        to.write_all(&ANSWER)?;
        to.write_all(&[word])?;
        to.write_all(&engine)?;
        to.write_all(&(body.len() as u64).to_be_bytes())?;
        to.write_all(body)?;
        to.flush()
    }

    /// The answer in all that a process wrote; `None` when it is none, or not whole.
    pub(super) fn read(mut bytes: Vec<u8>) -> Option<Answer> {
        let (magic, rest) = bytes.split_first_chunk::<16>()?;
        let (&[word], rest) = rest.split_first_chunk::<1>()?;
        let (&engine, rest) = rest.split_first_chunk::<32>()?;
        let (length, body) = rest.split_first_chunk::<8>()?;
        if *magic != ANSWER || u64::from_be_bytes(*length) != body.len() as u64 {
            return None;
        }
        let text = || {
            let text = String::from_utf8_lossy(body);
            crate::text::plain(&text, MAX_SENTENCE)
        };
        match word {
            0 => Some(Answer::Code(engine, bytes.split_off(FRAME))),
            1 => Some(Answer::Invalid(text())),
            2 => Some(Answer::Memory),
            3 => Some(Answer::Unable(text())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_written_can_be_read_and_nothing_else() {
        let request = Request {
            memory: 1,
            cpu_seconds: 2,
            length: 3,
        };
        let mut bytes = Vec::new();
        request.write(&mut bytes).unwrap();
        assert_eq!(Request::read(&mut &bytes[..]).unwrap(), request);
        bytes[3] ^= 1;
        assert!(Request::read(&mut &bytes[..]).is_err());

        for answer in [
            Answer::Code([7; 32], vec![1, 2, 3]),
            Answer::Invalid("no".into()),
            Answer::Memory,
            Answer::Unable("cannot".into()),
        ] {
            let mut bytes = Vec::new();
            answer.write(&mut bytes).unwrap();
            assert_eq!(Answer::read(bytes.clone()), Some(answer));
            for length in 0..bytes.len() {
                assert_eq!(Answer::read(bytes[..length].to_vec()), None, "{length}");
            }
            bytes.push(0);
            assert_eq!(Answer::read(bytes), None, "more than was announced");
        }
    }
}
