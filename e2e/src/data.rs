//! Where the real data lies, and the Python that reads reference files.

use std::path::PathBuf;

/// Returns the folder of this package, as cargo says at run time. Compiled in,
/// it would be that of another checkout whenever two share a target folder.
///
/// # Panics
/// When the test is not run by cargo.
pub fn package() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the package's folder").into()
}

/// Returns the folder of real meter data beside the project, or none after
/// saying that the test is skipped.
pub fn shared_data() -> Option<PathBuf> {
    let folder = package().join("../../shared/data");
    if folder.is_dir() {
        return Some(folder.canonicalize().expect("resolve the data folder"));
    }
    eprintln!("SKIPPED: no real meter data at {}", folder.display());
    None
}

/// Returns a Python with DuckDB (`make test` installs one), or none after
/// saying that the test is skipped.
pub fn python() -> Option<PathBuf> {
    let python = std::env::var_os("SANSO_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let found = std::process::Command::new(&python).args(["-c", "import duckdb"]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    assert!(std::env::var_os("CI").is_none(), "{} has no DuckDB; in CI that is a failure", python.display());
    eprintln!("SKIPPED: {} has no DuckDB (`make test` installs it)", python.display());
    None
}

/// Returns schemathesis, the property-based client (`make test` installs it),
/// or none after saying that the test is skipped.
pub fn schemathesis() -> Option<PathBuf> {
    let client =
        std::env::var_os("SANSO_SCHEMATHESIS").map_or_else(|| PathBuf::from("schemathesis"), PathBuf::from);
    let found = std::process::Command::new(&client).arg("--version").output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(client);
    }
    assert!(std::env::var_os("CI").is_none(), "there is no {}; in CI that is a failure", client.display());
    eprintln!(
        "SKIPPED: the API is NOT held against its OpenAPI document: no {} (`make test` installs it)",
        client.display()
    );
    None
}
