//! Secrets as guests see them: read-only files of one directory (`OpenFaaS`), which lie in memory and nowhere else.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use runtime_api::{SecretName, SecretValue};

/// Where functions find the secrets that their specs name (`OpenFaaS`).
pub(crate) const DIRECTORY: &str = "/var/openfaas/secrets";

type Values = BTreeMap<SecretName, SecretValue>;

/// The secrets of a node, as they are now. Clones are the same secrets.
#[derive(Clone, Default)]
pub struct Secrets(Arc<ArcSwap<Values>>);

impl Secrets {
    /// All of them, as they are now.
    pub fn all(&self) -> Arc<Values> {
        self.0.load_full()
    }

    /// Puts others in place of all of them, for calls that begin from now on.
    pub fn replace(&self, all: Values) {
        self.0.store(Arc::new(all));
    }

    /// Those that a function may read, each as a file of its own name. A function that names none gets none.
    pub fn files(&self, names: Vec<SecretName>) -> Option<SecretFiles> {
        (!names.is_empty()).then(|| SecretFiles { names: names.into(), secrets: self.clone() })
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

/// The secrets that a function may read.
#[derive(Clone, Debug)]
pub struct SecretFiles {
    names: Arc<[SecretName]>,
    secrets: Secrets,
}

impl SecretFiles {
    /// As one call sees them, from its beginning to its end.
    pub(crate) fn open(&self) -> Directory {
        Directory { names: self.names.clone(), values: self.secrets.all() }
    }
}

/// The directory of one call.
pub(crate) struct Directory {
    names: Arc<[SecretName]>,
    values: Arc<Values>,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    File(File),
}

/// A secret as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    value: SecretValue,
    /// Tells it from the other files of the directory.
    pub(crate) inode: u64,
}

/// Tells the directory from its files.
pub(crate) const DIRECTORY_INODE: u64 = 1;

/// The longest path that is looked at, in bytes (Linux, `PATH_MAX`): a walk is not interrupted.
const MAX_PATH_BYTES: usize = 4096;

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Astray {
    NotFound,
    NotADirectory,
    /// It would lead out of the directory.
    Outside,
    /// It is longer than any that leads somewhere.
    TooLong,
}

impl Directory {
    /// The files that there are, by name. A secret that was removed since the deploy is none.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, File)> {
        let named = self.names.iter().zip(DIRECTORY_INODE + 1..);
        named.filter_map(|(name, inode)| {
            Some((name.name(), File { value: self.values.get(name)?.clone(), inode }))
        })
    }

    /// What a relative path leads to. There are no links and no other directories.
    pub(crate) fn find(&self, path: &str) -> Result<Node, Astray> {
        if path.is_empty() {
            return Err(Astray::NotFound);
        }
        if path.len() > MAX_PATH_BYTES {
            return Err(Astray::TooLong);
        }
        if path.starts_with('/') {
            return Err(Astray::Outside);
        }
        let mut node = Node::Directory;
        for part in path.split('/') {
            node = match (node, part) {
                (Node::File(_), _) => return Err(Astray::NotADirectory),
                (Node::Directory, "" | ".") => Node::Directory,
                (Node::Directory, "..") => return Err(Astray::Outside),
                (Node::Directory, name) => Node::File(self.file(name).ok_or(Astray::NotFound)?),
            };
        }
        Ok(node)
    }

    fn file(&self, wanted: &str) -> Option<File> {
        let mut named = self.names.iter().zip(DIRECTORY_INODE + 1..);
        let (name, inode) = named.find(|(name, _)| name.name() == wanted)?;
        Some(File { value: self.values.get(name)?.clone(), inode })
    }
}

impl Node {
    pub(crate) fn inode(&self) -> u64 {
        match self {
            Self::Directory => DIRECTORY_INODE,
            Self::File(file) => file.inode,
        }
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        match self {
            Self::Directory => 0,
            Self::File(file) => file.size_bytes(),
        }
    }
}

impl File {
    pub(crate) fn size_bytes(&self) -> u64 {
        self.value.expose().len() as u64
    }

    /// What there is from a position on, up to so many bytes.
    pub(crate) fn read(&self, position: u64, most: usize) -> &[u8] {
        let start = usize::try_from(position).unwrap_or(usize::MAX);
        let rest = self.value.expose().get(start..).unwrap_or_default();
        rest.get(..most).unwrap_or(rest)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn secret(name: &str) -> SecretName {
        SecretName::new(name, "").unwrap()
    }

    /// A function's secrets, some of which there are.
    pub(crate) fn files(names: &[&str], there_are: &[(&str, &[u8])]) -> SecretFiles {
        let secrets = Secrets::default();
        let value = |(name, value): &(&str, &[u8])| (secret(name), SecretValue::new(*value).unwrap());
        secrets.replace(there_are.iter().map(value).collect());
        secrets.files(names.iter().map(|name| secret(name)).collect()).unwrap()
    }

    #[test]
    fn only_what_is_named_is_there() {
        let files = files(&["a", "gone", "b.pem"], &[("a", b"1"), ("b.pem", b"23"), ("other", b"4")]);
        let directory = files.open();
        let listed: Vec<_> =
            directory.files().map(|(name, file)| (name, file.inode, file.size_bytes())).collect();
        assert_eq!(listed, [("a", 2, 1), ("b.pem", 4, 2)]);
        for path in ["a", "./a", "././/a", ".//./a"] {
            assert_eq!(directory.find(path).unwrap().inode(), 2, "{path}");
        }
        for path in [".", "./", ".//."] {
            assert_eq!(directory.find(path), Ok(Node::Directory), "{path}");
        }
        for (path, astray) in [
            ("", Astray::NotFound),
            ("gone", Astray::NotFound),
            ("other", Astray::NotFound),
            ("a\0", Astray::NotFound),
            ("A", Astray::NotFound),
            ("a/", Astray::NotADirectory),
            ("a/.", Astray::NotADirectory),
            ("a/../a", Astray::NotADirectory),
            ("..", Astray::Outside),
            ("./../secrets/a", Astray::Outside),
            ("/var/openfaas/secrets/a", Astray::Outside),
            ("/", Astray::Outside),
        ] {
            assert_eq!(directory.find(path), Err(astray), "{path}");
        }
        assert_eq!(directory.find(&"./".repeat(2048)), Ok(Node::Directory));
        assert_eq!(directory.find(&"./".repeat(2049)), Err(Astray::TooLong));
        assert!(Secrets::default().files(Vec::new()).is_none());
    }

    #[test]
    fn a_call_keeps_what_it_began_with_and_the_next_one_sees_the_change() {
        let files = files(&["a"], &[("a", b"before")]);
        let begun = files.open();
        files.secrets.replace([(secret("a"), SecretValue::new("after").unwrap())].into());
        assert_eq!(begun.file("a").unwrap().read(0, 9), b"before");
        assert_eq!(files.open().file("a").unwrap().read(0, 9), b"after");
        files.secrets.replace(BTreeMap::new());
        assert_eq!(files.open().find("a"), Err(Astray::NotFound));
    }

    #[test]
    fn reading_stays_within_the_value_and_nothing_shows_it() {
        let files = files(&["a"], &[("a", b"hunter2")]);
        let file = files.open().file("a").unwrap();
        for (position, most, read) in [
            (0, 3, &b"hun"[..]),
            (6, 3, b"2"),
            (7, 3, b""),
            (8, usize::MAX, b""),
            (u64::MAX, 1, b""),
            (1, usize::MAX, b"unter2"),
        ] {
            assert_eq!(file.read(position, most), read, "{position} {most}");
        }
        assert!(!format!("{files:?} {file:?} {:?}", files.secrets).contains("hunter2"));
    }
}
