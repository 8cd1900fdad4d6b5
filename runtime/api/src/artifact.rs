use std::{fmt, path::PathBuf, str::FromStr, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A SHA-256 digest. Displays as `sha256:` and 64 hexadecimal digits, and is never used as a path in any other form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The 64 hexadecimal digits, lower case.
    pub fn hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let hex = text.strip_prefix("sha256:")?;
            let mut bytes = [0; 32];
            if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
                return None;
            }
            for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
                *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
            }
            Some(Self(bytes))
        };
        parse().ok_or_else(|| {
            Error::invalid(
                "invalid-digest",
                format!("{text:?} is not a digest: sha256: and 64 hexadecimal digits are expected"),
            )
        })
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// WebAssembly that was verified against its digest and lies in the local store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The digest of the module's own bytes, whatever they were packed in.
    pub digest: Digest,
    /// The size of the module in bytes.
    pub size_bytes: u64,
    /// Core module or component, by its first eight bytes.
    pub kind: ArtifactKind,
    /// The arguments that an image's configuration gives after the module's own name.
    #[serde(default)]
    pub args: Vec<String>,
    /// The environment that an image's configuration gives.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Where its bytes are. Derived from the digest, hence not stored.
    #[serde(skip)]
    pub path: PathBuf,
}

/// What a disk holds of one module: the module itself, or its machine code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The module.
    pub digest: Digest,
    /// What it takes, in bytes.
    pub size_bytes: u64,
    /// When it was written or asked for last.
    pub used: SystemTime,
}

/// What a module is given when it is started, beside its own name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleCommand {
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment: names and values.
    pub env: Vec<(String, String)>,
}

impl ModuleCommand {
    /// Whether no argument or variable has a zero byte, and every variable a name.
    ///
    /// # Errors
    /// [`Error::Invalid`] that says which does not.
    pub fn check(&self) -> Result<()> {
        let bad = |what: String| Err(Error::invalid("invalid-command", what));
        if let Some(arg) = self.args.iter().find(|arg| arg.contains('\0')) {
            return bad(format!("argument {arg:?} has a zero byte in it"));
        }
        let unusable = |(name, value): &&(String, String)| {
            name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
        };
        match self.env.iter().find(unusable) {
            Some((name, _)) => bad(format!("variable {name:?} has no valid name or value")),
            None => Ok(()),
        }
    }
}

/// The two binary formats of WebAssembly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArtifactKind {
    /// A core module.
    Module,
    /// A component (Component Model).
    Component,
}

impl ArtifactKind {
    /// Tells by the magic number and version (WebAssembly binary format §5.5; Component Model Binary.md).
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        match bytes.get(..8)? {
            [0, b'a', b's', b'm', 1, 0, 0, 0] => Some(Self::Module),
            [0, b'a', b's', b'm', 0x0d, 0, 1, 0] => Some(Self::Component),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_round_trip_and_nothing_else_parses() {
        let text = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        for bad in [
            "",
            "sha256:",
            "sha256:../../x",
            "sha512:00",
            &text.to_uppercase(),
            &text[..70],
            &format!("{text}0"),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
