//! One more function in a stack file, whose text stays as its author wrote it.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;

use super::{Function, Stack, mistake, replace_variables};

/// A function that a stack file is to have.
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    pub(crate) language: &'a str,
    pub(crate) handler: &'a str,
    pub(crate) image: &'a str,
}

impl Entry<'_> {
    fn lines(&self, indent: &str) -> String {
        let Self { name, language, handler, image } = self;
        let inner = indent.repeat(2);
        format!(
            "{indent}{name}:\n{inner}lang: {language}\n{inner}handler: {handler}\n{inner}image: {image}\n"
        )
    }

    /// A stack file that has this function only.
    ///
    /// # Errors
    /// The function's words do not stand for themselves in YAML.
    pub(crate) fn as_stack(&self, file: &Path, gateway: &str) -> Result<String> {
        let head = format!("version: 1.0\nprovider:\n  name: openfaas\n  gateway: {gateway}\nfunctions:\n");
        let text = head + &self.lines("  ");
        self.check(file, &BTreeMap::new(), &text)?;
        Ok(text)
    }

    /// The text of a stack file with the function at the end of `functions:`.
    ///
    /// # Errors
    /// The text is no stack file, has such a function already, or is written in a way that this cannot add to.
    pub(crate) fn append_to(&self, file: &Path, text: &str) -> Result<String> {
        let before = Stack::parse(file, &replace_variables(file, text)?)?;
        if before.functions.contains_key(self.name) {
            let reason = format!("it has a function {} already: choose another name", self.name);
            return Err(mistake(file, &reason).into());
        }
        let extended = insert(text, self);
        self.check(file, &before.functions, &extended)?;
        Ok(extended)
    }

    /// Whatever the text looks like: it is to mean what it meant, and this function more.
    fn check(&self, file: &Path, before: &BTreeMap<String, Function>, text: &str) -> Result<()> {
        let image = replace_variables(file, self.image)?;
        let read = replace_variables(file, text).and_then(|text| Stack::parse(file, &text));
        let as_meant = read.is_ok_and(|mut after| {
            let new = after.functions.remove(self.name).unwrap_or_default();
            let words = [&new.lang, &new.handler, &new.image].map(Option::as_deref);
            words == [self.language, self.handler, &image].map(Some) && after.functions == *before
        });
        if !as_meant {
            let reason = "its form is too unusual to add to: add this below `functions:`";
            return Err(mistake(file, &format!("{reason}\n{}", self.lines("  "))).into());
        }
        Ok(())
    }
}

fn insert(text: &str, entry: &Entry<'_>) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let is_key = |line: &str| line.starts_with(|c: char| c.is_ascii_alphabetic());
    let Some(head) = lines.iter().position(|line| line.trim_end() == "functions:") else {
        return format!("{}functions:\n{}", with_line_end(text), entry.lines("  "));
    };
    let below = lines.get(head + 1..).unwrap_or_default();
    let content = |line: &&&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let indent = below.iter().find(content).map(|line| {
        let width = line.len() - line.trim_start_matches(' ').len();
        " ".repeat(width)
    });
    let indent = indent.filter(|indent| !indent.is_empty()).unwrap_or_else(|| "  ".into());
    // Up to the next key at the margin, less what belongs to that: comments at the margin, and empty lines.
    let section = below.iter().position(|line| is_key(line)).unwrap_or(below.len());
    let last = below
        .get(..section)
        .unwrap_or_default()
        .iter()
        .rposition(|line| line.starts_with(' ') && !line.trim().is_empty());
    let end = head + 1 + last.map_or(0, |last| last + 1);
    let part = |range: Option<&[&str]>| range.unwrap_or_default().concat();
    let (before, after) = (part(lines.get(..end)), part(lines.get(end..)));
    format!("{}{}{after}", with_line_end(&before), entry.lines(&indent))
}

fn with_line_end(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry<'_> =
        Entry { name: "new", language: "rust-wasm", handler: "./new", image: "me/new:latest" };
    const NEW: &str = "  new:\n    lang: rust-wasm\n    handler: ./new\n    image: me/new:latest\n";
    const HEAD: &str = "provider: {name: openfaas}\n";

    fn appended(text: &str) -> Result<String> {
        ENTRY.append_to(Path::new("stack.yml"), text)
    }

    #[test]
    fn a_new_stack_is_what_faas_cli_writes() {
        let text = ENTRY.as_stack(Path::new("stack.yaml"), "http://127.0.0.1:8080").unwrap();
        let stack = Stack::parse(Path::new("stack.yaml"), &text).unwrap();
        assert_eq!(stack.gateway.as_deref(), Some("http://127.0.0.1:8080"));
        assert_eq!(stack.functions["new"].lang.as_deref(), Some("rust-wasm"));
        assert!(text.ends_with(NEW), "{text}");
    }

    #[test]
    fn the_new_function_comes_last_and_the_rest_stays_as_it_is() {
        for (before, after) in [
            ("functions:\n  a:\n    image: b\n", ""),
            (
                "functions:\n  a:\n    image: b # with a comment\n",
                "\n# about the following\nconfiguration:\n  copy: [common]\n",
            ),
            ("# none yet\nfunctions:\n", ""),
            ("", ""),
        ] {
            let head = if before.is_empty() { "functions:\n" } else { "" };
            let expected = format!("{HEAD}{before}{head}{NEW}{after}");
            assert_eq!(appended(&format!("{HEAD}{before}{after}")).unwrap(), expected);
        }
        let wide = format!("{HEAD}functions:\n    a:\n        image: b");
        let expected = format!(
            "{wide}\n    new:\n        lang: rust-wasm\n        handler: ./new\n        image: me/new:latest\n"
        );
        assert_eq!(appended(&wide).unwrap(), expected);
    }

    #[test]
    fn variables_are_no_obstacle() {
        let text = format!(
            "{HEAD}functions:\n  a: {{image: '${{NO_SUCH_THING:-b}}', secrets: [${{NO_SUCH_THING:-c}}]}}\n"
        );
        assert_eq!(appended(&text).unwrap(), format!("{text}{NEW}"));
        let entry = Entry { image: "${NO_SUCH_THING:-me}/new:1", ..ENTRY };
        let appended = entry.append_to(Path::new("a.yml"), &text).unwrap();
        assert!(appended.ends_with("    image: ${NO_SUCH_THING:-me}/new:1\n"), "{appended}");
    }

    #[test]
    fn what_cannot_be_added_to_is_left_alone_and_told() {
        let taken = appended(&format!("{HEAD}functions:\n  new: {{image: a}}\n")).unwrap_err().to_string();
        assert!(taken.contains("has a function new already"), "{taken}");
        let flow = appended(&format!("{HEAD}functions: {{a: {{image: b}}}}\n")).unwrap_err().to_string();
        assert!(flow.contains("add this below") && flow.contains(NEW), "{flow}");
        let injected = Entry { image: "a\n  other: {image: b}", ..ENTRY };
        assert!(injected.append_to(Path::new("a.yml"), &format!("{HEAD}functions:\n")).is_err());
        assert!(injected.as_stack(Path::new("a.yml"), "http://g").is_err());
        assert!(appended("functions:\n").unwrap_err().to_string().contains("provider.name"));
    }
}
