use crate::{Error, Result};

/// An amount of memory, in bytes, from a Kubernetes quantity such as `128Mi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemoryQuantity(pub u64);

/// An amount of processor time, in thousandths of a core, from a Kubernetes quantity such as `100m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuQuantity(pub u64);

impl MemoryQuantity {
    /// Parses a Kubernetes quantity, rounding a fraction of a byte up.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `field`, the text, and an example that works.
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        let thousandths = parse_thousandths(text).ok_or_else(|| invalid(field, text, "128Mi"))?;
        u64::try_from(thousandths.div_ceil(1000)).map(Self).map_err(|_| invalid(field, text, "128Mi"))
    }
}

impl CpuQuantity {
    /// Parses a Kubernetes quantity, rounding a fraction of a thousandth up.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `field`, the text, and an example that works.
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        let thousandths = parse_thousandths(text).ok_or_else(|| invalid(field, text, "100m"))?;
        u64::try_from(thousandths).map(Self).map_err(|_| invalid(field, text, "100m"))
    }
}

fn invalid(field: &str, text: &str, example: &str) -> Error {
    Error::invalid(
        "invalid-quantity",
        format!("{field} {text:?} is not a quantity: write it like {example:?}"),
    )
}

/// A non-negative decimal with an optional suffix (Kubernetes `resource.Quantity`), times 1000, rounded up.
fn parse_thousandths(text: &str) -> Option<u128> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(split)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 18 || fraction.len() > 9 {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    // Thousandths of one unit of the suffix, as a fraction, so that "n" and "u" stay exact.
    let (multiply, divide): (u128, u128) = match suffix {
        "n" => (1, 1_000_000),
        "u" => (1, 1_000),
        "m" => (1, 1),
        "" => (1_000, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000_000, 1),
        "Ki" => (1_000 << 10, 1),
        "Mi" => (1_000 << 20, 1),
        "Gi" => (1_000 << 30, 1),
        "Ti" => (1_000 << 40, 1),
        "Pi" => (1_000 << 50, 1),
        "Ei" => (1_000 << 60, 1),
        exponent => (1_000u128.checked_mul(10u128.checked_pow(parse_exponent(exponent)?)?)?, 1),
    };
    Some(digits.checked_mul(multiply)?.div_ceil(scale.checked_mul(divide)?))
}

fn parse_exponent(suffix: &str) -> Option<u32> {
    let digits = suffix.strip_prefix(['e', 'E'])?;
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubernetes_reads() {
        for (text, bytes) in [
            ("128Mi", 128 << 20),
            ("128M", 128_000_000),
            ("1Gi", 1 << 30),
            ("0.5Gi", 1 << 29),
            ("1e3", 1000),
            ("1500m", 2),
            ("64", 64),
            (".5Ki", 512),
        ] {
            assert_eq!(MemoryQuantity::parse("memory", text).unwrap().0, bytes, "{text}");
        }
        for (text, milli) in [("100m", 100), ("1", 1000), ("0.1", 100), ("2.5", 2500), ("1n", 1)] {
            assert_eq!(CpuQuantity::parse("cpu", text).unwrap().0, milli, "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for bad in ["", "Mi", "-1", "12MB", "1 Gi", "1.2.3", "1e", "99999999999999999999", "9999999Ei", "."] {
            let error = MemoryQuantity::parse("limits.memory", bad).unwrap_err();
            assert!(error.to_string().contains("limits.memory"), "{bad}: {error}");
        }
    }
}
