//! Commands of root, and the user that owns the vault.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use crate::command_line::{authorize, expect, house};
use crate::support::house::{ANN, House};
use crate::support::skipped::skipped;

/// A user id that nobody has.
pub const STRANGER: u32 = 61_234;

/// The owners of everything in a folder, including the folder.
fn owners(folder: &Path) -> BTreeSet<u32> {
    let about = std::fs::symlink_metadata(folder).unwrap();
    let mut found = BTreeSet::from([about.uid()]);
    if about.is_dir() {
        std::fs::read_dir(folder).unwrap().for_each(|entry| found.extend(owners(&entry.unwrap().path())));
    }
    found
}

/// Lets every user enter the folders of the tests, like those of a system.
pub fn open_ways(house: &House) {
    for folder in [house.folder.path(), house.provider.ca_file().parent().unwrap()] {
        std::fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_root_does_while_the_service_is_down_the_service_can_use() {
    let house = house().await;
    open_ways(&house);
    let state = &house.config.state_dir;
    std::fs::create_dir(state).unwrap();
    std::fs::set_permissions(state, Permissions::from_mode(0o700)).unwrap();
    if chown(state, Some(STRANGER), Some(STRANGER)).is_err() {
        skipped("only root can give a folder away");
        return;
    }
    let ended = authorize(&house, &["authorize", ANN]).await;
    expect(&ended, 0, "");
    assert!(state.join("sled/db").exists());
    assert_eq!(owners(state), BTreeSet::from([STRANGER]));
    // The command has given up its rights for good, and a backup belongs to the owner.
    let backup = house.folder.path().join("backup");
    let failed = house.run(&["backup", backup.to_str().unwrap()], "");
    expect(&failed, 74, "cannot write the backup");
    let backup = state.join("backup");
    expect(&house.run(&["backup", backup.to_str().unwrap()], ""), 0, "");
    assert_eq!(owners(state), BTreeSet::from([STRANGER]));
    let own = house.begin_as(STRANGER, &["status"], &[]).end();
    assert!(own.code == Some(0) && own.out.contains(ANN), "{}", own.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn root_keeps_its_rights_where_the_service_does_the_work() {
    let mut house = house().await;
    open_ways(&house);
    let state = house.config.state_dir.clone();
    let daemon = house.serve().await;
    expect(&authorize(&house, &["authorize", ANN]).await, 0, "");
    // As if it ran as another user. It can still use what it has open.
    if chown(&state, Some(STRANGER), None).is_err() {
        skipped("only root can give a folder away");
        return;
    }
    let backup = house.folder.path().join("backup");
    expect(&house.run(&["backup", backup.to_str().unwrap()], ""), 0, "");
    assert_eq!(std::fs::metadata(&backup).unwrap().uid(), 0);
    drop(daemon);
}
