//! `${VARIABLE}` in a stack file, replaced before the file is read as YAML (faas-cli, which has it from drone/envsubst).

/// Defaults that have variables with defaults, and so on.
const MAX_DEPTH: usize = 16;

/// Replaces `${NAME}`, and `${NAME:-DEFAULT}` (also written `:=` or `=`) where the variable is missing or empty. Without a
/// default, that is nothing. `$$` is a dollar sign, `\\` and `\/` the second character, as drone/envsubst has it.
///
/// # Errors
/// What is wrong, on which line; or the text would be longer than the limit, in bytes.
pub(super) fn substitute(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    limit: usize,
) -> Result<String, String> {
    let mut reader = Reader { text, rest: text, environment };
    let mut replaced = String::with_capacity(text.len());
    while let Some(at) = reader.rest.find(['$', '\\']) {
        replaced.push_str(reader.take(at));
        if reader.skip("${") {
            replaced.push_str(&reader.variable(0)?);
        } else if reader.skip("$$") {
            replaced.push('$');
        } else if reader.skip("\\/") {
            replaced.push('/');
        } else if reader.skip("\\\\") {
            replaced.push('\\');
        } else {
            replaced.push_str(reader.take(1));
        }
        if replaced.len() > limit {
            return Err(reader.mistake(&format!("with its variables it has more than {limit} bytes")));
        }
    }
    replaced.push_str(reader.rest);
    Ok(replaced)
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn skip(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// The value of what stands behind `${`, up to its `}`.
    fn variable(&mut self, depth: usize) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err(self.mistake("too many variables are inside of others"));
        }
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let name = self.take(end);
        let value = (self.environment)(name).filter(|value| !value.is_empty());
        if name.is_empty() {
            return Err(self
                .mistake("${ is followed by no name: write ${NAME}, or $${ for the characters themselves"));
        }
        if self.skip("}") {
            return Ok(value.unwrap_or_default());
        }
        if !(self.skip(":-") || self.skip(":=") || self.skip("=")) {
            let forms = "write ${NAME}, ${NAME:-DEFAULT}, or $${ for the characters themselves";
            return Err(self.mistake(&format!("${{{name} is followed by what is not understood: {forms}")));
        }
        let default = self.default_value(name, depth)?;
        Ok(value.unwrap_or(default))
    }

    fn default_value(&mut self, name: &str, depth: usize) -> Result<String, String> {
        let mut default = String::new();
        loop {
            let end = self
                .rest
                .find(['}', '$'])
                .ok_or_else(|| self.mistake(&format!("${{{name} has no end: }} is missing")))?;
            default.push_str(self.take(end));
            if self.skip("}") {
                return Ok(default);
            }
            if self.skip("${") {
                default.push_str(&self.variable(depth + 1)?);
            } else {
                default.push_str(self.take(1));
            }
        }
    }

    fn mistake(&self, reason: &str) -> String {
        let before = self.text.len() - self.rest.len();
        let line = 1 + self.text.bytes().take(before).filter(|byte| *byte == b'\n').count();
        format!("line {line}: {reason}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> Result<String, String> {
        let environment = |name: &str| match name {
            "USER_NAME" => Some("me".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        substitute(text, &environment, 100)
    }

    #[test]
    fn variables_are_replaced_as_faas_cli_replaces_them() {
        for (text, expected) in [
            ("image: ${USER_NAME}/f:${TAG:-latest}", "image: me/f:latest"),
            ("${USER_NAME:-you} ${EMPTY:-full} ${NONE}.", "me full ."),
            ("${A:=b} ${A=b} ${USER_NAME=b}", "b b me"),
            ("${A:-x${B:-y${USER_NAME}}z}", "xymez"),
            ("${A:-http://host:80/?a=b$c}", "http://host:80/?a=b$c"),
            ("$${USER_NAME} $USER_NAME $5", "${USER_NAME} $USER_NAME $5"),
            (r"a\\b \/ \n", r"a\b / \n"),
            ("${A:-}", ""),
            ("ä$", "ä$"),
        ] {
            assert_eq!(replaced(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told_with_its_line() {
        for (text, expected) in [
            ("a\nb: ${", "line 2: ${ is followed by no name"),
            ("${A", "line 1: ${A is followed"),
            ("\n\n${A^^}", "line 3: ${A is followed by what is not understood"),
            ("${A-b}", "write ${NAME}, ${NAME:-DEFAULT}"),
            ("${A:-b", "} is missing"),
            (&"${USER_NAME}".repeat(60), "more than 100 bytes"),
            (&"${A:-".repeat(100), "inside of others"),
        ] {
            let error = replaced(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
