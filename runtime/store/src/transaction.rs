use std::ops::{Bound, RangeBounds};

use redb::{
    CursorError, ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction,
};

use crate::{Error, Result};

type Bytes = &'static [u8];
type Guard<'a> = redb::AccessGuard<'a, Bytes>;

/// A record as the tree has it, read in place.
pub struct Value<'a>(Guard<'a>);

impl Value<'_> {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.value()
    }
}

/// Changes that happen together or not at all.
pub struct Transaction(pub(crate) WriteTransaction);

impl Transaction {
    /// A table, which is made if there is none. Each may be opened once at a time.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn open(&self, name: &'static str) -> Result<Table<'_>> {
        Ok(Table(self.0.open_table(definition(name)).map_err(stopped)?))
    }
}

/// A table in a transaction.
pub struct Table<'t>(redb::Table<'t, Bytes, Bytes>);

impl Table<'_> {
    /// The record of a key.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Value<'_>>> {
        Ok(self.0.get(key).map_err(stopped)?.map(Value))
    }

    /// The first key of a range with its record.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn first<'k>(&self, range: impl RangeBounds<&'k [u8]> + 'k) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let mut found = self.0.range(range).map_err(stopped)?;
        found.next().transpose().map_err(stopped).map(|entry| entry.map(owned))
    }

    /// Puts a record in place of the one there may be. Answers whether there was one.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn insert(&mut self, key: &[u8], record: &[u8]) -> Result<bool> {
        Ok(self.0.insert(key, record).map_err(stopped)?.is_some())
    }

    /// Puts records in place of those there may be. Their keys ascend: records that come to lie beside each other are put
    /// there together, which takes less time and leaves no half empty pages.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn extend<K: AsRef<[u8]>, R: AsRef<[u8]>>(
        &mut self,
        records: impl IntoIterator<Item = (K, R)>,
    ) -> Result<()> {
        let mut records = records.into_iter();
        let mut next = records.next();
        while let Some((key, record)) = next {
            // The end of the run: a key that is there already, or behind one that is.
            next = None;
            let mut cursor = self.0.lower_bound_mut(Bound::Included(key.as_ref())).map_err(stopped)?;
            let mut run = Some((key, record));
            let mut length = 0;
            while let Some((key, record)) = run.take() {
                match cursor.insert_before(key.as_ref(), record.as_ref()) {
                    Ok(()) => (length, run) = (length + 1, records.next()),
                    Err(CursorError::UnorderedKey) => next = Some((key, record)),
                    Err(error) => return Err(stopped(error)),
                }
            }
            cursor.close().map_err(stopped)?;
            if length == 0
                && let Some((key, record)) = next.take()
            {
                self.insert(key.as_ref(), record.as_ref())?;
                next = records.next();
            }
        }
        Ok(())
    }

    /// Removes a record. Answers whether there was one.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn remove(&mut self, key: &[u8]) -> Result<bool> {
        Ok(self.0.remove(key).map_err(stopped)?.is_some())
    }
}

/// What a finished transaction left, whatever is written meanwhile.
pub struct Snapshot(pub(crate) ReadTransaction);

impl Snapshot {
    /// A table; one that was never made is empty.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn open(&self, name: &'static str) -> Result<ReadTable> {
        match self.0.open_table(definition(name)) {
            Ok(table) => Ok(ReadTable(Some(table))),
            Err(TableError::TableDoesNotExist(_)) => Ok(ReadTable(None)),
            Err(error) => Err(stopped(error)),
        }
    }
}

/// A table in a snapshot.
pub struct ReadTable(Option<ReadOnlyTable<Bytes, Bytes>>);

impl ReadTable {
    /// The record of a key.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Value<'_>>> {
        let Some(table) = &self.0 else { return Ok(None) };
        Ok(table.get(key).map_err(stopped)?.map(Value))
    }

    /// Keys of a range with their records, in order.
    ///
    /// # Errors
    /// [`Error::Stopped`], also for each entry.
    pub fn range<'k>(
        &self,
        range: impl RangeBounds<&'k [u8]> + 'k,
    ) -> Result<impl Iterator<Item = Result<(Vec<u8>, Vec<u8>)>>> {
        let found = self.0.as_ref().map(|table| table.range(range)).transpose().map_err(stopped)?;
        Ok(found.into_iter().flatten().map(|entry| entry.map(owned).map_err(stopped)))
    }
}

fn owned((key, record): (Guard<'_>, Guard<'_>)) -> (Vec<u8>, Vec<u8>) {
    (key.value().to_vec(), record.value().to_vec())
}

fn definition(name: &'static str) -> TableDefinition<'static, Bytes, Bytes> {
    TableDefinition::new(name)
}

pub(crate) fn stopped(error: impl Into<redb::Error>) -> Error {
    Error::Stopped(error.into().to_string())
}
