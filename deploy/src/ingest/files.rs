//! Which files there are to ingest, in a fixed order.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// A file to ingest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InputFile {
    /// Where it is, as reached from the argument.
    pub(crate) path: PathBuf,
    /// Its size in bytes.
    pub(crate) size: u64,
}

/// Lists files in the order of the arguments; folders are walked in order of
/// name, without hidden files. Links to folders are not followed inside one,
/// so the walk ends.
pub(crate) fn list(arguments: &[PathBuf]) -> anyhow::Result<Vec<InputFile>> {
    let mut files = Vec::new();
    for argument in arguments {
        let kind = fs::metadata(argument).with_context(|| format!("read {}", argument.display()))?;
        if kind.is_dir() {
            walk(argument, &mut files)?;
        } else {
            ensure!(kind.is_file(), "{} is neither a file nor a folder", argument.display());
            files.push(InputFile { path: argument.clone(), size: kind.len() });
        }
    }
    ensure!(!files.is_empty(), "no files in the folders given");
    Ok(files)
}

fn walk(folder: &Path, files: &mut Vec<InputFile>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("list folder {}", folder.display()))?;
    let mut entries =
        entries.collect::<Result<Vec<_>, _>>().with_context(|| format!("list {}", folder.display()))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let link = entry.file_type().with_context(|| format!("read {}", path.display()))?;
        if link.is_dir() {
            walk(&path, files)?;
        } else if let Ok(target) = fs::metadata(&path)
            && target.is_file()
        {
            files.push(InputFile { path, size: target.len() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_walked_in_order_without_hidden_files() {
        let folder = tempfile::tempdir().expect("make a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("b")).expect("make a folder");
        for name in ["c.csv", "b/2.csv", "b/1.csv", ".hidden", "a.csv"] {
            fs::write(at(name), "x").expect("write a file");
        }
        let files = list(&[folder.path().to_owned(), at("c.csv")]).expect("list the folder");
        let paths: Vec<_> = files.into_iter().map(|file| file.path).collect();
        assert_eq!(paths, [at("a.csv"), at("b/1.csv"), at("b/2.csv"), at("c.csv"), at("c.csv")]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = format!("{:#}", list(&["no/such/file".into()]).expect_err("no such file"));
        assert!(error.contains("no/such/file"), "{error}");
    }
}
