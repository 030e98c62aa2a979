//! An object store whose listing shows what was there some time ago.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What was written is read at once, but listed only up to the last [`Lagging::look`].
#[derive(Debug, Default)]
pub(crate) struct Lagging {
    objects: Arc<InMemory>,
    listed: Mutex<Vec<ObjectMeta>>,
}

impl Lagging {
    /// Lets the listing catch up, once.
    pub(crate) async fn look(&self) {
        let listed = self.objects.list(None).try_collect().await.expect("memory lists");
        *self.listed.lock().expect("no panic while it is held") = listed;
    }
}

impl fmt::Display for Lagging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lagging")
    }
}

#[async_trait]
impl ObjectStore for Lagging {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.objects.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.objects.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let below = |file: &ObjectMeta| prefix.is_none_or(|prefix| file.location.prefix_matches(prefix));
        let listed = self.listed.lock().expect("no panic while it is held");
        let listed: Vec<_> = listed.iter().filter(|file| below(file)).cloned().map(Ok).collect();
        futures::stream::iter(listed).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
