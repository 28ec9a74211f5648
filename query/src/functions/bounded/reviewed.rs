//! Every scalar function that a session has, looked at: what its answer and its time grow with. A function that stands in neither list
//! fails a test, so that a newer engine brings none in unseen.

use super::growth::Growth;

/// Those that need bounds.
const GROWING: [(&str, Growth); 32] = [
    ("repeat", Growth::Repeat),
    ("lpad", Growth::Pad),
    ("rpad", Growth::Pad),
    ("range", Growth::Series),
    ("generate_series", Growth::Series),
    ("array_repeat", Growth::RepeatList),
    ("array_resize", Growth::ResizeList),
    ("replace", Growth::Replace),
    ("regexp_replace", Growth::ReplacePattern),
    ("regexp_match", Growth::Captures),
    ("array_replace", Growth::ReplaceItem),
    ("array_replace_n", Growth::ReplaceItem),
    ("array_replace_all", Growth::ReplaceItem),
    ("array_to_string", Growth::ListText),
    ("concat", Growth::Join(1)),
    ("concat_ws", Growth::Separated),
    ("overlay", Growth::Join(1)),
    ("make_array", Growth::Join(1)),
    ("array_append", Growth::Join(1)),
    ("array_prepend", Growth::Join(1)),
    ("array_concat", Growth::Join(1)),
    ("array_union", Growth::Join(1)),
    ("arrays_zip", Growth::Join(1)),
    ("map", Growth::Join(1)),
    ("encode", Growth::Join(2)),
    // one character of one byte becomes one of four
    ("translate", Growth::Join(4)),
    // each character becomes a text with its place in a list
    ("string_to_array", Growth::Join(5)),
    // `%c` is two characters, and what it stands for is 24
    ("to_char", Growth::Join(12)),
    ("levenshtein", Growth::TextPairs),
    ("array_has_all", Growth::ListPairs),
    ("array_has_any", Growth::ListPairs),
    ("arrow_cast", Growth::Type),
];

/// More of [`GROWING`], whose place is beside what they are like.
const CASTS: [&str; 3] = ["arrow_try_cast", "cast_to_type", "try_cast_to_type"];

/// Those whose answer is of a fixed size, or of the size of what they are given, in a time that grows with it alone.
#[cfg(test)]
pub(super) const HARMLESS: &str = "
    abs acos acosh asin asinh atan atan2 atanh cbrt ceil cos cosh cot degrees exp factorial floor gcd isnan iszero lcm ln log log10 log2
    nanvl pi power radians random round signum sin sinh sqrt tan tanh trunc
    ascii bit_length btrim character_length chr contains ends_with find_in_set initcap left lower ltrim octet_length reverse right rtrim
    split_part starts_with strpos substr substr_index to_hex upper uuid decode digest md5 sha224 sha256 sha384 sha512
    regexp_count regexp_instr regexp_like
    current_date current_time date_bin date_part date_trunc from_unixtime make_date make_time now to_date to_local_time to_time
    to_timestamp to_timestamp_micros to_timestamp_millis to_timestamp_nanos to_timestamp_seconds to_unixtime
    arrow_field arrow_metadata arrow_typeof coalesce file_row_index get_field greatest input_file_name least named_struct nullif nvl nvl2
    struct union_extract union_tag version with_metadata
    array_add array_any_value array_avg array_compact array_dims array_distance array_distinct array_element array_except array_has
    array_intersect array_length array_max array_min array_ndims array_normalize array_pop_back array_pop_front array_position
    array_positions array_product array_remove array_remove_all array_remove_n array_reverse array_scale array_slice array_sort
    array_subtract array_sum cardinality cosine_distance empty flatten inner_product map_entries map_extract map_keys map_values
    attr attr_int attr_float attr_bool has_attr match
    json_get json_get_str json_get_int json_get_float json_get_bool json_get_json json_length json_contains
";

/// How the answer of a function grows; `None`: it needs no bounds.
pub(super) fn growth(name: &str) -> Option<Growth> {
    let known = GROWING
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, growth)| *growth);
    known.or_else(|| CASTS.contains(&name).then_some(Growth::Type))
}

#[cfg(test)]
pub(super) fn growing() -> impl Iterator<Item = &'static str> {
    GROWING.iter().map(|(name, _)| *name).chain(CASTS)
}
