//! An application as files declare it: read from them, noticed when they change, and told to other nodes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use sanso_catalog::Catalog;
use sanso_state::{Fingerprint, FingerprintBuilder};
use sanso_view::{Application, View};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The files that declare an application, as they are and as they travel: MessagePack with the names of
/// fields, as all that nodes say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Files {
    sql: String,
    /// The reference tables' files, by their paths as declared.
    tables: BTreeMap<PathBuf, ByteBuf>,
}

/// An application as declared in files.
pub(crate) struct Declared {
    /// The parsed application.
    pub(crate) application: Application,
    /// Its views, bound to their reference tables.
    pub(crate) views: Vec<Arc<View>>,
    /// The content of all files that declare it.
    pub(crate) content: Fingerprint,
    /// These files.
    pub(crate) files: Files,
}

impl Declared {
    /// Refuses sources that are others than those which a node runs with.
    pub(crate) fn check_sources(&self, running: &Catalog) -> anyhow::Result<()> {
        for source in &self.application.sources {
            ensure!(
                running.sources.get(&source.name) == Some(source),
                "source {} was added or changed: restart the node with it; a source that holds readings \
                 can't change its columns, give the new one another name and topic",
                source.name
            );
        }
        Ok(())
    }
}

/// Reads and binds an application. Reference tables lie beside it.
pub(crate) fn read(path: &Path) -> anyhow::Result<Declared> {
    let sql =
        std::fs::read_to_string(path).with_context(|| format!("read application {}", path.display()))?;
    let base = path.parent().unwrap_or(Path::new("."));
    declare(sql, base, |file| std::fs::read(file))
        .with_context(|| format!("declare application {}", path.display()))
}

/// Parses and binds; each reference table's file is read once.
fn declare(
    sql: String,
    base: &Path,
    read: impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> anyhow::Result<Declared> {
    let application = Application::parse(&sql)?;
    let mut tables = BTreeMap::new();
    for table in &application.tables {
        // What can't be read is told by binding.
        if let Ok(text) = read(&base.join(&table.path)) {
            tables.insert(PathBuf::from(&table.path), ByteBuf::from(text));
        }
    }
    let views = application.bind_reading(base, |file| {
        let held = tables.get(file.strip_prefix(base).unwrap_or(file));
        held.map_or_else(|| read(file), |text| Ok(text.to_vec()))
    })?;
    let files = Files { sql, tables };
    let content = files.content(&application);
    Ok(Declared { application, views, content, files })
}

/// Returns the fingerprint of the application file and of the files of its reference tables. One that is gone
/// makes another content: the file may name other tables now.
pub(crate) fn content(path: &Path, application: &Application) -> anyhow::Result<Fingerprint> {
    let base = path.parent().unwrap_or(Path::new("."));
    let sql = std::fs::read(path).with_context(|| format!("read application {}", path.display()))?;
    let tables = application.tables.iter().filter_map(|table| std::fs::read(base.join(&table.path)).ok());
    let sql = Fingerprint::builder().part(sql);
    Ok(tables.fold(sql, |builder: FingerprintBuilder, text| builder.part(text)).finish())
}

impl Files {
    fn content(&self, application: &Application) -> Fingerprint {
        let tables = application.tables.iter().filter_map(|table| self.tables.get(Path::new(&table.path)));
        let sql = Fingerprint::builder().part(&self.sql);
        tables.fold(sql, |builder, text| builder.part(text)).finish()
    }

    /// Encodes them for another node.
    pub(crate) fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("files can be written")
    }

    /// Declares what another node has sent as this content.
    pub(crate) fn declare(bytes: &[u8], content: Fingerprint) -> anyhow::Result<Declared> {
        let Self { sql, tables } = rmp_serde::from_slice(bytes).context("read another node's application")?;
        let declared = declare(sql, Path::new(""), |file| {
            tables.get(file).map(|text| text.to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
        })?;
        ensure!(declared.content == content, "the application is not the one that was asked for");
        Ok(declared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQL: &str = "
CREATE SOURCE readings (usage_point TEXT, start_utc TIMESTAMP, value DECIMAL(18,6))
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, start_utc');
CREATE TABLE network (usage_point TEXT, feeder TEXT) WITH (path = 'tables/network.csv');
CREATE VIEW load AS SELECT n.feeder, SUM(r.value) AS kwh
  FROM readings r JOIN network n ON r.usage_point = n.usage_point GROUP BY n.feeder;
";

    #[test]
    fn an_application_is_the_same_views_on_the_node_that_it_was_sent_to() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let app = folder.path().join("app.sql");
        std::fs::create_dir(folder.path().join("tables"))?;
        std::fs::write(&app, SQL)?;
        std::fs::write(folder.path().join("tables/network.csv"), "usage_point,feeder\nM1,F1\n")?;
        let here = read(&app)?;
        assert_eq!(content(&app, &here.application)?, here.content);
        let there = Files::declare(&here.files.encode(), here.content)?;
        let versions = |of: &Declared| of.views.iter().map(|view| view.fingerprint).collect::<Vec<_>>();
        assert_eq!((versions(&there), there.content), (versions(&here), here.content));
        assert!(Files::declare(&here.files.encode(), Fingerprint::of(b"another")).is_err());
        // The table is part of the view's version.
        std::fs::write(folder.path().join("tables/network.csv"), "usage_point,feeder\nM1,F2\n")?;
        let changed = read(&app)?;
        assert_ne!((versions(&changed), changed.content), (versions(&here), here.content));
        std::fs::remove_file(folder.path().join("tables/network.csv"))?;
        assert_ne!(content(&app, &changed.application)?, changed.content, "a table that is gone is a change");
        Ok(())
    }

    #[test]
    fn a_missing_table_is_named_with_its_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let app = folder.path().join("app.sql");
        std::fs::write(&app, SQL).expect("it can be written");
        let error = format!("{:#}", read(&app).err().expect("there is no table"));
        let table = folder.path().join("tables/network.csv").display().to_string();
        assert!(error.contains("network") && error.contains(&table), "{error}");
    }
}
