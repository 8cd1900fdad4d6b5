//! The files that a component sees (`wasi:filesystem`): its secrets, and nothing else. They are read-only, lie in memory, and
//! take no system call. A function without secrets sees no directory at all.
//!
//! Wasmtime's own host of this interface is for files on disk, whose type of descriptor it fixes. A descriptor of ours goes
//! by the same type in a guest's hands, and is an [`Opened`] in the table.

use bytes::Bytes;
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::{
    async_trait,
    p2::{
        DynInputStream, DynOutputStream, FsError, FsResult, InputStream, Pollable, StreamError, StreamResult,
        bindings::filesystem::{
            preopens,
            types::{self, Descriptor, DirectoryEntry, DirectoryEntryStream, ErrorCode},
        },
    },
};

use crate::{
    instance::State,
    secrets::{Astray, DIRECTORY, File, Node},
};

/// The most that one call of the host reads.
const MAX_READ_BYTES: usize = 64 << 10;

/// Puts this host in the place of Wasmtime's own.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    types::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    preopens::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// What a guest has open.
struct Opened(Node);

/// A directory that is being read: how many of its entries were told.
struct Listing(usize);

impl State {
    fn opened(&self, descriptor: &Resource<Descriptor>) -> FsResult<&Node> {
        Ok(&self.table.get(&Resource::<Opened>::new_borrow(descriptor.rep()))?.0)
    }

    fn file(&self, descriptor: &Resource<Descriptor>) -> FsResult<&File> {
        match self.opened(descriptor)? {
            Node::File(file) => Ok(file),
            Node::Directory => Err(ErrorCode::BadDescriptor.into()),
        }
    }

    fn directory(&self, descriptor: &Resource<Descriptor>) -> FsResult<()> {
        match self.opened(descriptor)? {
            Node::Directory => Ok(()),
            Node::File(_) => Err(ErrorCode::NotDirectory.into()),
        }
    }

    fn find(&self, descriptor: &Resource<Descriptor>, path: &str) -> FsResult<Node> {
        self.directory(descriptor)?;
        let directory = self.secrets.as_ref().ok_or(ErrorCode::BadDescriptor)?;
        directory.find(path).map_err(|astray| match astray {
            Astray::NotFound => ErrorCode::NoEntry.into(),
            Astray::NotADirectory => ErrorCode::NotDirectory.into(),
            Astray::Outside => ErrorCode::NotPermitted.into(),
            Astray::TooLong => ErrorCode::NameTooLong.into(),
        })
    }

    fn open(&mut self, node: Node) -> FsResult<Resource<Descriptor>> {
        Ok(Resource::new_own(self.table.push(Opened(node))?.rep()))
    }

    /// Refuses what would change something, of what is open.
    fn refuse<T>(&self, descriptor: &Resource<Descriptor>) -> FsResult<T> {
        self.opened(descriptor)?;
        Err(ErrorCode::ReadOnly.into())
    }
}

impl preopens::Host for State {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        if self.secrets.is_none() {
            return Ok(Vec::new());
        }
        let directory = self.table.push(Opened(Node::Directory))?;
        Ok(vec![(Resource::new_own(directory.rep()), DIRECTORY.to_owned())])
    }
}

impl types::Host for State {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.table.get(&error)?;
        // No stream of a file fails.
        Ok(None)
    }
}

impl types::HostDescriptor for State {
    fn read_via_stream(
        &mut self,
        descriptor: Resource<Descriptor>,
        position: u64,
    ) -> FsResult<Resource<DynInputStream>> {
        let file = self.file(&descriptor)?.clone();
        let stream: DynInputStream = Box::new(Reader { file, position });
        Ok(self.table.push(stream)?)
    }

    fn write_via_stream(
        &mut self,
        descriptor: Resource<Descriptor>,
        _: u64,
    ) -> FsResult<Resource<DynOutputStream>> {
        self.refuse(&descriptor)
    }

    fn append_via_stream(&mut self, descriptor: Resource<Descriptor>) -> FsResult<Resource<DynOutputStream>> {
        self.refuse(&descriptor)
    }

    async fn advise(
        &mut self,
        descriptor: Resource<Descriptor>,
        _: u64,
        _: u64,
        _: types::Advice,
    ) -> FsResult<()> {
        self.file(&descriptor).map(drop)
    }

    async fn sync_data(&mut self, descriptor: Resource<Descriptor>) -> FsResult<()> {
        self.opened(&descriptor).map(drop)
    }

    async fn sync(&mut self, descriptor: Resource<Descriptor>) -> FsResult<()> {
        self.opened(&descriptor).map(drop)
    }

    async fn get_flags(&mut self, descriptor: Resource<Descriptor>) -> FsResult<types::DescriptorFlags> {
        self.opened(&descriptor)?;
        Ok(types::DescriptorFlags::READ)
    }

    async fn get_type(&mut self, descriptor: Resource<Descriptor>) -> FsResult<types::DescriptorType> {
        Ok(kind(self.opened(&descriptor)?))
    }

    async fn set_size(&mut self, descriptor: Resource<Descriptor>, _: u64) -> FsResult<()> {
        self.refuse(&descriptor)
    }

    async fn set_times(
        &mut self,
        descriptor: Resource<Descriptor>,
        _: types::NewTimestamp,
        _: types::NewTimestamp,
    ) -> FsResult<()> {
        self.refuse(&descriptor)
    }

    async fn read(
        &mut self,
        descriptor: Resource<Descriptor>,
        most: u64,
        position: u64,
    ) -> FsResult<(Vec<u8>, bool)> {
        let file = self.file(&descriptor)?;
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(MAX_READ_BYTES);
        let bytes = file.read(position, most).to_vec();
        let end = position.saturating_add(bytes.len() as u64) >= file.size_bytes();
        Ok((bytes, end))
    }

    async fn write(&mut self, descriptor: Resource<Descriptor>, _: Vec<u8>, _: u64) -> FsResult<u64> {
        self.refuse(&descriptor)
    }

    async fn read_directory(
        &mut self,
        descriptor: Resource<Descriptor>,
    ) -> FsResult<Resource<DirectoryEntryStream>> {
        self.directory(&descriptor)?;
        Ok(Resource::new_own(self.table.push(Listing(0))?.rep()))
    }

    async fn create_directory_at(&mut self, descriptor: Resource<Descriptor>, _: String) -> FsResult<()> {
        self.refuse(&descriptor)
    }

    async fn stat(&mut self, descriptor: Resource<Descriptor>) -> FsResult<types::DescriptorStat> {
        Ok(stat(self.opened(&descriptor)?))
    }

    async fn stat_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        _: types::PathFlags,
        path: String,
    ) -> FsResult<types::DescriptorStat> {
        Ok(stat(&self.find(&descriptor, &path)?))
    }

    async fn set_times_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        _: types::PathFlags,
        _: String,
        _: types::NewTimestamp,
        _: types::NewTimestamp,
    ) -> FsResult<()> {
        self.refuse(&descriptor)
    }

    async fn link_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        _: types::PathFlags,
        _: String,
        _: Resource<Descriptor>,
        _: String,
    ) -> FsResult<()> {
        self.refuse(&descriptor)
    }

    async fn open_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        _: types::PathFlags,
        path: String,
        open: types::OpenFlags,
        flags: types::DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let only_directory = open.contains(types::OpenFlags::DIRECTORY);
        if only_directory && open != types::OpenFlags::DIRECTORY {
            return Err(ErrorCode::Invalid.into());
        }
        let to_write = open.intersects(types::OpenFlags::CREATE | types::OpenFlags::TRUNCATE)
            || flags.contains(types::DescriptorFlags::WRITE);
        if to_write {
            return self.refuse(&descriptor);
        }
        match self.find(&descriptor, &path)? {
            Node::File(_) if only_directory => Err(ErrorCode::NotDirectory.into()),
            node => self.open(node),
        }
    }

    async fn readlink_at(&mut self, descriptor: Resource<Descriptor>, path: String) -> FsResult<String> {
        self.find(&descriptor, &path)?;
        // There are no links.
        Err(ErrorCode::Invalid.into())
    }

    async fn remove_directory_at(&mut self, descriptor: Resource<Descriptor>, _: String) -> FsResult<()> {
        self.refuse(&descriptor)
    }

    async fn rename_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        _: String,
        _: Resource<Descriptor>,
        _: String,
    ) -> FsResult<()> {
        self.refuse(&descriptor)
    }

    async fn symlink_at(&mut self, descriptor: Resource<Descriptor>, _: String, _: String) -> FsResult<()> {
        self.refuse(&descriptor)
    }

    async fn unlink_file_at(&mut self, descriptor: Resource<Descriptor>, _: String) -> FsResult<()> {
        self.refuse(&descriptor)
    }

    async fn is_same_object(
        &mut self,
        one: Resource<Descriptor>,
        other: Resource<Descriptor>,
    ) -> wasmtime::Result<bool> {
        let inode = |descriptor| Ok::<_, wasmtime::Error>(self.opened(descriptor)?.inode());
        Ok(inode(&one)? == inode(&other)?)
    }

    async fn metadata_hash(
        &mut self,
        descriptor: Resource<Descriptor>,
    ) -> FsResult<types::MetadataHashValue> {
        Ok(hash(self.opened(&descriptor)?))
    }

    async fn metadata_hash_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        _: types::PathFlags,
        path: String,
    ) -> FsResult<types::MetadataHashValue> {
        Ok(hash(&self.find(&descriptor, &path)?))
    }

    fn drop(&mut self, descriptor: Resource<Descriptor>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Opened>::new_own(descriptor.rep()))?;
        Ok(())
    }
}

impl types::HostDirectoryEntryStream for State {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        let Listing(told) = self.table.get_mut(&Resource::<Listing>::new_borrow(stream.rep()))?;
        let next = self.secrets.as_ref().and_then(|directory| directory.files().nth(*told));
        *told += usize::from(next.is_some());
        let entry =
            |name: &str| DirectoryEntry { type_: types::DescriptorType::RegularFile, name: name.to_owned() };
        Ok(next.map(|(name, _)| entry(name)))
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Listing>::new_own(stream.rep()))?;
        Ok(())
    }
}

/// Reads a file from a position to its end.
struct Reader {
    file: File,
    position: u64,
}

#[async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {}
}

#[async_trait]
impl InputStream for Reader {
    fn read(&mut self, most: usize) -> StreamResult<Bytes> {
        let bytes = Bytes::copy_from_slice(self.file.read(self.position, most.min(MAX_READ_BYTES)));
        if bytes.is_empty() && most > 0 {
            return Err(StreamError::Closed);
        }
        self.position = self.position.saturating_add(bytes.len() as u64);
        Ok(bytes)
    }
}

fn kind(node: &Node) -> types::DescriptorType {
    match node {
        Node::Directory => types::DescriptorType::Directory,
        Node::File(_) => types::DescriptorType::RegularFile,
    }
}

/// Nobody knows how old a secret is.
fn stat(node: &Node) -> types::DescriptorStat {
    types::DescriptorStat {
        type_: kind(node),
        link_count: 1,
        size: node.size_bytes(),
        data_access_timestamp: None,
        data_modification_timestamp: None,
        status_change_timestamp: None,
    }
}

fn hash(node: &Node) -> types::MetadataHashValue {
    types::MetadataHashValue { lower: node.inode(), upper: 0 }
}

#[cfg(test)]
mod tests;
