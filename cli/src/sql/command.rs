//! What a line at the prompt, or the lines so far, amount to: a query, or one of the commands that begin with a backslash.

/// Everything that begins with a backslash.
pub(super) const NAMES: [&str; 10] = [
    "\\?", "\\d", "\\df", "\\dt", "\\g", "\\pager", "\\q", "\\r", "\\timing", "\\x",
];

pub(super) const HELP: &str = "A query ends with a semicolon, \\g or an empty line; the Tab key completes names.
  \\d, \\dt        the tables
  \\d TABLE       the columns of one
  \\df [WORD]     the functions, or those with this in their name
  \\x [on|off|auto]      each row as a list of its columns; auto: where a row is wider than the terminal
  \\timing [on|off]      how long each answer took, with its way here
  \\pager [on|off]       show what is longer than the terminal with $PAGER, or less
  \\r             forget the lines so far; \\g ends them
  \\?             this
  \\q             leave (or Ctrl-D); Ctrl-C ends a running query
";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    Nothing,
    More,
    Query(String),
    Help,
    Leave,
    Expanded(Option<Expanded>),
    Timing(Option<bool>),
    Pager(Option<bool>),
    /// Told to the person, who then tries again.
    Mistake(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Expanded {
    #[default]
    Off,
    On,
    Auto,
}

pub(super) fn input(so_far: &mut String, line: &str) -> Input {
    let trimmed = line.trim();
    if trimmed.starts_with('\\') {
        let command = command(so_far, trimmed.trim_end_matches(';').trim_end());
        return command;
    }
    if so_far.is_empty() {
        match trimmed.trim_end_matches(';') {
            "" => return Input::Nothing,
            "exit" | "quit" => return Input::Leave,
            "help" => return Input::Help,
            _ => {}
        }
    } else {
        so_far.push('\n');
    }
    let go = trimmed.strip_suffix("\\g");
    so_far.push_str(go.unwrap_or(line));
    if go.is_some() || trimmed.is_empty() || trimmed.ends_with(';') {
        return query(so_far);
    }
    Input::More
}

fn query(so_far: &mut String) -> Input {
    let text = std::mem::take(so_far);
    match text.trim().trim_end_matches(';').trim_end() {
        "" => Input::Nothing,
        text => Input::Query(text.to_owned()),
    }
}

fn command(so_far: &mut String, text: &str) -> Input {
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let switch = |of: fn(Option<bool>) -> Input| match rest {
        "" => of(None),
        "on" => of(Some(true)),
        "off" => of(Some(false)),
        other => Input::Mistake(format!("{name} is on or off, not {other}")),
    };
    match (name, rest) {
        ("\\q", _) => Input::Leave,
        ("\\?" | "\\h", _) => Input::Help,
        ("\\g", _) => query(so_far),
        ("\\r", _) => {
            so_far.clear();
            Input::Nothing
        }
        ("\\d" | "\\dt", "") => Input::Query("SHOW TABLES".to_owned()),
        ("\\d" | "\\d+", table) if table.chars().all(|c| c.is_alphanumeric() || "_.\"".contains(c)) => {
            Input::Query(format!("DESCRIBE {table}"))
        }
        ("\\d", other) => Input::Mistake(format!("{other} is no name of a table")),
        ("\\df", word) => Input::Query(format!(
            "SELECT DISTINCT routine_name AS name, lower(function_type) AS kind FROM information_schema.routines \
             WHERE routine_name LIKE '%{}%' ORDER BY 1",
            word.replace('\'', "''").replace(['%', '_'], "")
        )),
        ("\\timing", _) => switch(Input::Timing),
        ("\\pager", _) => switch(Input::Pager),
        ("\\x", "") => Input::Expanded(None),
        ("\\x", "on") => Input::Expanded(Some(Expanded::On)),
        ("\\x", "off") => Input::Expanded(Some(Expanded::Off)),
        ("\\x", "auto") => Input::Expanded(Some(Expanded::Auto)),
        ("\\x", other) => Input::Mistake(format!("\\x is on, off or auto, not {other}")),
        (other, _) => Input::Mistake(format!("there is no {other}; \\? lists what there is")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_ends_with_a_semicolon_or_an_empty_line() {
        let mut so_far = String::new();
        assert_eq!(input(&mut so_far, ""), Input::Nothing);
        assert_eq!(input(&mut so_far, "SELECT 1"), Input::More);
        assert_eq!(input(&mut so_far, "  + 1;"), Input::Query("SELECT 1\n  + 1".into()));
        assert_eq!(input(&mut so_far, "SELECT ';'"), Input::More);
        assert_eq!(input(&mut so_far, ""), Input::Query("SELECT ';'".into()));
        assert_eq!(input(&mut so_far, "SELECT 2 \\g"), Input::Query("SELECT 2".into()));
        assert_eq!(input(&mut so_far, "SELECT 3"), Input::More);
        assert_eq!(input(&mut so_far, "\\g"), Input::Query("SELECT 3".into()));
        assert_eq!(input(&mut so_far, "SELECT 4"), Input::More);
        assert_eq!(input(&mut so_far, "\\r"), Input::Nothing);
        assert_eq!(input(&mut so_far, "quit;"), Input::Leave);
        assert_eq!(so_far, "");
    }

    #[test]
    fn commands_are_read_as_psql_reads_them() {
        let read = |line: &str| input(&mut String::new(), line);
        assert_eq!(read("\\d events"), Input::Query("DESCRIBE events".into()));
        assert_eq!(read("\\dt;"), Input::Query("SHOW TABLES".into()));
        assert_eq!(read("\\x"), Input::Expanded(None));
        assert_eq!(read("\\x auto"), Input::Expanded(Some(Expanded::Auto)));
        assert_eq!(read("\\timing off"), Input::Timing(Some(false)));
        assert!(matches!(read("\\df json'_%"), Input::Query(sql) if sql.contains("'%json''%'")));
        for wrong in ["\\nonsense", "\\x perhaps", "\\timing perhaps", "\\d a; DROP TABLE b"] {
            assert!(matches!(read(wrong), Input::Mistake(_)), "{wrong}");
        }
        for name in NAMES {
            assert!(HELP.contains(name), "{name}");
            assert!(!matches!(read(name), Input::Mistake(_)), "{name}");
        }
    }
}
