//! What psql's commands list: what there is, and nothing of a server of Postgres that is not here.

use super::node::Node;
use super::postgres::{Said, psql, psql_is_here};

/// Each of them is a question of psql's own, and none may fail.
const COMMANDS: [&str; 39] = [
    r"\d",
    r"\d events",
    r"\d+ events",
    r"\d logs",
    r"\d+ service_red",
    r"\dt",
    r"\dt+",
    r"\dv",
    r"\dv+",
    r"\dm",
    r"\di",
    r"\ds",
    r"\dE",
    r"\dp",
    r"\z events",
    r"\ddp",
    r"\df",
    r"\df+ rate",
    r"\da",
    r"\do",
    r"\dT",
    r"\dD",
    r"\dC",
    r"\l",
    r"\l+",
    r"\dn",
    r"\dn+",
    r"\du",
    r"\dg",
    r"\db",
    r"\dx",
    r"\dA",
    r"\dP",
    r"\dRp",
    r"\dRs",
    r"\dF",
    r"\drds",
    r"\dc",
    r"\dconfig",
];

async fn listed(node: &Node, command: &str) -> Said {
    let said = psql(node, &node.acme, &["-c", command]).await;
    assert!(
        said.success && !said.err.contains("ERROR"),
        "{command}: {}{}",
        said.out,
        said.err
    );
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listing_of_psql_is_answered() {
    if !psql_is_here() {
        return;
    }
    let node = Node::start().await;
    for command in COMMANDS {
        listed(&node, command).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_is_what_there_is() {
    if !psql_is_here() {
        return;
    }
    let node = Node::start().await;
    let holds = async |command: &str, wanted: &[&str]| {
        let said = listed(&node, command).await;
        for row in wanted {
            assert!(
                said.out.lines().any(|line| line.starts_with(row)),
                "{command} lacks {row}: {}",
                said.out
            );
        }
        said
    };
    holds(r"\dt", &["public|events|table|sluice"]).await;
    let views = holds(r"\dv", &["public|logs|view|sluice", "public|service_red|view|sluice"]).await;
    assert_eq!(views.rows().len(), 8, "{}", views.out);
    holds(r"\d", &["public|events|table|", "public|logs|view|"]).await;
    let databases = holds(r"\l", &["sluice|sluice|UTF8|C|C|"]).await;
    assert_eq!(databases.rows().len(), 1, "{}", databases.out);
    assert_eq!(holds(r"\dn", &["public|sluice"]).await.rows().len(), 1);
    assert_eq!(holds(r"\du", &["sluice|"]).await.rows().len(), 1);
    // reading is all that anyone may do
    holds(r"\dp events", &["public|events|table|sluice=r/sluice|"]).await;
    holds(
        r"\d+ events",
        &["time|timestamp with time zone|", "attrs|", "severity|"],
    )
    .await;
    // functions that can be called, and none of Postgres that cannot
    let functions = holds(
        r"\df",
        &[
            "public|histogram_quantile|any|",
            "public|date_bin|any|interval, expression",
            "public|trace|SETOF record|",
        ],
    )
    .await;
    assert!(!functions.out.contains("pg_read_file"), "{}", functions.out);
    assert_eq!(listed(&node, r"\df no_such_function").await.rows(), [""; 0]);
    for nothing in [r"\dx", r"\dP", r"\dD", r"\dRp"] {
        assert_eq!(listed(&node, nothing).await.rows(), [""; 0], "{nothing}");
    }
    let keys = "SELECT count(*) FROM pg_catalog.pg_index UNION ALL SELECT count(*) FROM pg_catalog.pg_constraint";
    assert_eq!(psql(&node, &node.acme, &["-c", keys]).await.rows(), ["0", "0"]);
    let sizes = "SELECT pg_size_pretty(10239), pg_size_pretty(10240), pg_size_pretty(-1500000), pg_size_pretty(9223372036854775807), \
                 pg_table_size('events'::regclass), user, current_user";
    assert_eq!(
        psql(&node, &node.acme, &["-c", sizes]).await.rows(),
        ["10239 bytes|10 kB|-1465 kB|8192 PB||sluice|sluice"]
    );
}

/// The standard's own tables say the same, in the words of Postgres.
#[tokio::test(flavor = "multi_thread")]
async fn the_information_schema_has_the_types_of_postgres() {
    if !psql_is_here() {
        return;
    }
    let node = Node::start().await;
    let asked = async |sql: &str| psql(&node, &node.acme, &["-c", sql]).await;
    let columns = asked(
        "SELECT column_name, data_type, udt_name, is_nullable FROM information_schema.columns \
         WHERE table_schema = 'public' AND table_name = 'events' AND column_name IN ('time', 'severity', 'body', 'attrs') ORDER BY 1",
    )
    .await;
    let rows = columns.rows();
    assert!(rows.contains(&"body|text|text|YES"), "{rows:?}{}", columns.err);
    assert!(
        rows.contains(&"time|timestamp with time zone|timestamptz|YES"),
        "{rows:?}"
    );
    assert_eq!(rows.len(), 4);
    let tables = asked(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'",
    )
    .await;
    assert_eq!(tables.rows(), ["events"], "{}", tables.err);
    let schemas = asked("SELECT schema_name FROM information_schema.schemata ORDER BY 1").await;
    assert_eq!(
        schemas.rows(),
        ["information_schema", "pg_catalog", "public"],
        "{}",
        schemas.err
    );
    let keys = asked("SELECT c.constraint_name FROM information_schema.table_constraints c JOIN information_schema.key_column_usage k USING (constraint_name)").await;
    assert_eq!(keys.rows(), [""; 0], "{}", keys.err);
}
