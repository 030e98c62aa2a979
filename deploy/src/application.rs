//! Reads an application file with its reference tables, and notices when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use sanso_state::{Fingerprint, FingerprintBuilder};
use sanso_view::{Application, View};

/// An application as declared in files.
pub(crate) struct Declared {
    /// The parsed application.
    pub(crate) application: Application,
    /// Its views, bound to their reference tables.
    pub(crate) views: Vec<Arc<View>>,
    /// The content of all files that declare it.
    pub(crate) content: Fingerprint,
}

/// Reads and binds an application. Reference tables lie beside it.
pub(crate) fn read(path: &Path) -> anyhow::Result<Declared> {
    let sql =
        std::fs::read_to_string(path).with_context(|| format!("read application {}", path.display()))?;
    let application = Application::parse(&sql)
        .map_err(anyhow::Error::from)
        .with_context(|| format!("declare application {}", path.display()))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let content = content(path, &application)?;
    let views = application
        .bind(base)
        .map_err(anyhow::Error::from)
        .with_context(|| format!("bind application {}", path.display()))?;
    Ok(Declared { application, views, content })
}

/// Returns the fingerprint of the application file and its reference tables' files.
pub(crate) fn content(path: &Path, application: &Application) -> anyhow::Result<Fingerprint> {
    let base = path.parent().unwrap_or(Path::new("."));
    let files = application.tables.iter().map(|table| base.join(&table.path));
    std::iter::once(path.to_owned())
        .chain(files)
        .try_fold(Fingerprint::builder(), |builder: FingerprintBuilder, file: PathBuf| {
            let bytes = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            Ok(builder.part(bytes))
        })
        .map(FingerprintBuilder::finish)
}
