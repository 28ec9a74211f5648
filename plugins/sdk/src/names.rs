//! Names that people use for columns, and the columns of the contract that they stand for.

/// Types of attribute columns that hold scalars.
pub(crate) const SCALARS: [char; 4] = ['s', 'i', 'd', 'b'];

/// Types of attribute columns that hold arrays and objects, bytes, and values of no kind. Rows do not show them, but setting an
/// attribute takes them away.
pub(crate) const OTHERS: [char; 3] = ['j', 'y', 'n'];

/// The columns (names or patterns of the contract) that a name stands for: `service` and `host` are attributes of the resource,
/// `attrs.KEY`, `resource.KEY` and `scope.KEY` are all columns of that key and the rare attributes of the group;
/// anything else is the name or pattern itself.
pub fn columns_of(name: &str) -> Vec<String> {
    match name {
        "service" => text_attribute("resource", "service.name"),
        "host" => text_attribute("resource", "host.name"),
        "duration" => vec!["duration_ns".to_owned()],
        // Whichever number was sent.
        "value" => vec!["value".to_owned(), "value_int".to_owned()],
        name => match name.split_once('.') {
            Some((group @ ("attrs" | "resource" | "scope"), key)) => SCALARS
                .iter()
                .chain(&OTHERS)
                .map(|kind| format!("{group}:{kind}:{key}"))
                .chain([format!("{group}:*")])
                .collect(),
            _ => vec![name.to_owned()],
        },
    }
}

fn text_attribute(group: &str, key: &str) -> Vec<String> {
    vec![format!("{group}:s:{key}"), format!("{group}:*")]
}

/// Adds the columns of these names, each once.
pub(crate) fn add<C: AsRef<str>>(columns: &mut Vec<String>, names: impl IntoIterator<Item = C>) {
    for column in names.into_iter().flat_map(|name| columns_of(name.as_ref())) {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
}

/// Whether the host hands out (or takes back) a column of this name for these patterns.
pub(crate) fn declared(patterns: &[String], column: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, column))
}

/// As the host has it: `*` stands for any text; `attrs:*`, `resource:*` and `scope:*` are names.
fn matches(pattern: &str, column: &str) -> bool {
    if matches!(pattern, "attrs:*" | "resource:*" | "scope:*") {
        return pattern == column;
    }
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == column;
    };
    let Some(mut text) = column.strip_prefix(first) else {
        return false;
    };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_columns() {
        let check = |name: &str, column: &str, expected: bool| {
            assert_eq!(declared(&columns_of(name), column), expected, "{name} {column}");
        };
        check("severity", "severity", true);
        check("severity", "severity_text", false);
        check("service", "resource:s:service.name", true);
        check("service", "resource:*", true);
        check("value", "value_int", true);
        check("duration", "duration_ns", true);
        check("attrs.http.route", "attrs:s:http.route", true);
        check("attrs.http.route", "attrs:i:http.route", true);
        check("attrs.http.route", "attrs:j:http.route", true);
        check("attrs.http.route", "attrs:j:http", false);
        check("attrs.http.*", "attrs:s:http.route", true);
        check("attrs.http.*", "attrs:s:rpc.method", false);
        check("attrs:s:*", "attrs:s:a", true);
        check("attrs:s:*", "attrs:*", false);
        check("attrs:*", "attrs:s:a", false);
        check("*", "attrs:*", true);
        check("*:s:*.id", "resource:s:k8s.pod.id", true);
        check("attrs:*:a*b*c", "attrs:s:a1b2c", true);
        check("attrs:*:a*b*c", "attrs:s:a1b2cd", false);
        check("attrs:*:a*b*c", "attrs:s:a1c", false);
    }
}
