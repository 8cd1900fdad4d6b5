//! What a function is given besides its requests: variables and secrets.

use std::{io, str};

use crate::{Error, Result};

#[cfg(not(target_family = "wasm"))]
use crate::testing as platform;
#[cfg(target_family = "wasm")]
use crate::wasi as platform;

/// A variable of the function's `environment`.
///
/// # Errors
/// A 500 if it is not set or not UTF-8; the log says which, and where to set it.
///
/// ```
/// #[fawn::handler]
/// async fn handle(_: fawn::Request) -> fawn::Result<String> {
///     Ok(format!("{}\n", fawn::env("GREETING")?))
/// }
/// ```
#[track_caller]
pub fn env(name: &str) -> Result<String> {
    match platform::variable(name) {
        Some(Ok(value)) => Ok(value),
        Some(Err(_)) => Err(format!("the variable {name} is not text in UTF-8").into()),
        None => {
            Err(format!("the variable {name} is not set: add it under `environment` in stack.yml").into())
        }
    }
}

/// A variable of the function's `environment`, or else a value of your own.
///
/// ```
/// #[fawn::handler]
/// async fn handle(_: fawn::Request) -> String {
///     fawn::env_or("GREETING", "hello\n")
/// }
/// ```
pub fn env_or(name: &str, default: &str) -> String {
    platform::variable(name).and_then(std::result::Result::ok).unwrap_or_else(|| default.to_owned())
}

/// A secret that the function names, as text, without the line break that a file may end with.
///
/// ```
/// use fawn::Request;
///
/// # fn show() -> fawn::Result<()> {
/// let token = fawn::secret("api-token")?;
/// let request = Request::get("https://example.com/").header("authorization", format!("Bearer {token}"));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`secret_bytes`], and a 500 if it is not UTF-8.
#[track_caller]
pub fn secret(name: &str) -> Result<String> {
    let bytes = secret_bytes(name)?;
    let text = str::from_utf8(&bytes).map_err(|cause| format!("the secret {name} is not text: {cause}"))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// A secret that the function names, byte for byte: the file `/var/openfaas/secrets/NAME`.
///
/// # Errors
/// A 500 if the function has no such secret; the log says which, and how to give it one.
///
/// ```
/// # fn show() -> fawn::Result<()> {
/// let key = fawn::secret_bytes("signing-key")?;
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn secret_bytes(name: &str) -> Result<Vec<u8>> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        return Err(Error::from(format!("{name:?} is not the name of a secret")));
    }
    match platform::secret(name) {
        Ok(value) => Ok(value),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(Error::from(format!(
            "the function has no secret {name}: add it under `secrets` in stack.yml, and make it with \
             `faas-cli secret create {name}`"
        ))),
        Err(cause) => Err(Error::from(format!("the secret {name} cannot be read: {cause}"))),
    }
}
