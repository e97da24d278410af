//! `[vault]`: the database that several replicas share.

use super::{bad, good};
use crate::config::database::DatabaseHost;

fn with(url: &str) -> String {
    format!("[vault]\npostgresql = \"{url}\"\n")
}

#[test]
fn a_database_is_named_by_a_url() {
    assert!(good("").vault.is_none());
    for (url, host, port, user, database, is_encrypted) in [
        ("postgresql://postkey@db.example.com/mail", "db.example.com", 5432, "postkey", "mail", true),
        ("postgres://a%40b@db.example.com:6000/m%2Fl?sslmode=verify-full", "db.example.com", 6000, "a@b", "m/l", true),
        ("postgresql://p@127.0.0.1/mail?sslmode=disable", "127.0.0.1", 5432, "p", "mail", false),
        ("postgresql://p@[::1]:6000/mail?sslmode=disable", "::1", 6000, "p", "mail", false),
    ] {
        let read = good(&with(url)).vault.unwrap();
        assert_eq!(read.host, DatabaseHost::Name(host.to_owned()), "{url}");
        assert_eq!((read.port, read.user.as_str(), read.database.as_str()), (port, user, database), "{url}");
        assert_eq!(read.is_encrypted, is_encrypted, "{url}");
    }
    for url in ["postgresql://p@/mail?host=/run/postgresql", "postgresql:///mail?host=/run/postgresql&user=p&port=6000"]
    {
        let read = good(&with(url)).vault.unwrap();
        assert_eq!((read.host, read.user.as_str()), (DatabaseHost::Folder("/run/postgresql".into()), "p"), "{url}");
        assert!(!read.is_encrypted, "{url}");
    }
}

#[test]
fn a_database_that_cannot_be_used_safely_is_refused() {
    for (url, words) in [
        ("mysql://p@db.example.com/mail", "must be the URL of a database"),
        ("postgresql://p:secret@db.example.com/mail", "contains a password; remove it, and write it to password"),
        ("postgresql://p@db.example.com/mail?password=secret", "contains a password"),
        ("postgresql://p@192.0.2.1/mail?sslmode=disable", "its host is another machine; write sslmode=verify-full"),
        ("postgresql://p@db.example.com/mail?sslmode=require", "does not verify whose server it is"),
        ("postgresql://db.example.com/mail", "names no user"),
        ("postgresql://p@db.example.com", "names no database"),
        ("postgresql://p@db.example.com/mail?options=-c", "has the parameter options"),
    ] {
        let mistakes = bad(&with(url));
        assert!(mistakes.iter().any(|mistake| mistake.contains(words)), "{url}: {mistakes:?}");
        assert!(!mistakes.iter().any(|mistake| mistake.contains("secret@")), "{url}: {mistakes:?}");
    }
    assert!(bad("[vault]\n").iter().any(|mistake| mistake.contains("postgresql is missing")));
}
