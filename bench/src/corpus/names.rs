//! The vocabulary of the corpus: services, people, routes, and what goes wrong.

use super::random::Random;

pub(crate) const SERVICES: u64 = 180;
pub(crate) const HOSTS: u64 = 60;
pub(crate) const USERS: u64 = 150_000;

const AREAS: [&str; 18] = [
    "basket",
    "billing",
    "booking",
    "catalogue",
    "delivery",
    "fraud",
    "identity",
    "invoice",
    "loyalty",
    "mailer",
    "media",
    "offers",
    "orders",
    "payments",
    "reviews",
    "search",
    "stock",
    "tariffs",
];
const ROLES: [&str; 10] = [
    "api",
    "bridge",
    "consumer",
    "frontend",
    "indexer",
    "jobs",
    "rpc",
    "scheduler",
    "store",
    "sync",
];
const GIVEN: [&str; 24] = [
    "aiko", "amir", "anna", "bruno", "carla", "dmitri", "edda", "femi", "gita", "henrik", "ilse", "joao", "kofi",
    "lena", "mateo", "nadia", "omar", "petra", "rafael", "sanna", "tomas", "ursula", "yusuf", "zofia",
];
const FAMILY: [&str; 24] = [
    "abebe", "almeida", "bauer", "castillo", "demir", "eriksen", "farkas", "gruber", "hansen", "ito", "jansen",
    "keller", "larsen", "meyer", "novak", "olsen", "pereira", "reyes", "santos", "tran", "usman", "virtanen", "weiss",
    "zimmer",
];
const MAIL_HOSTS: [&str; 5] = [
    "example.com",
    "post.example.org",
    "team.example.net",
    "kunden.test",
    "shop.example",
];
pub(crate) const METHODS: [&str; 8] = ["GET", "GET", "GET", "GET", "POST", "POST", "PUT", "DELETE"];
pub(crate) const ROUTES: [&str; 20] = [
    "/v2/basket/{basket}/lines",
    "/v2/basket/{basket}",
    "/v1/search",
    "/v1/catalogue/{sku}",
    "/v1/catalogue/{sku}/reviews",
    "/v3/orders",
    "/v3/orders/{order}",
    "/v3/orders/{order}/cancel",
    "/v1/customers/{customer}",
    "/v1/customers/{customer}/addresses",
    "/session",
    "/session/renew",
    "/v1/payments/{payment}/authorise",
    "/v1/payments/{payment}/refund",
    "/v1/stock/{sku}",
    "/v1/offers/today",
    "/graphql",
    "/assets/{file}",
    "/v1/invoices/{invoice}.pdf",
    "/livez",
];
pub(crate) const CLIENTS: [&str; 6] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 15_4) AppleWebKit/605.1.15 Safari/605.1.15",
    "Mozilla/5.0 (Linux; Android 15) Chrome/138.0 Mobile",
    "axios/1.11.0",
    "Java-http-client/21.0.4",
    "curl/8.15.0",
];
pub(crate) const REGIONS: [&str; 4] = ["eu-north-1", "eu-south-2", "us-west-2", "sa-east-1"];
pub(crate) const WARNINGS: [&str; 6] = [
    "answer took longer than its budget",
    "second attempt at the upstream call",
    "cache is cold",
    "quota nearly used up",
    "client speaks an old version",
    "waiting for a free connection",
];
pub(crate) const FAILURES: [&str; 6] = [
    "upstream did not answer in time",
    "connection closed by the other side",
    "lock cycle found",
    "issuer declined the payment",
    "stock service sent no body",
    "certificate was not accepted",
];
pub(crate) const OPERATIONS: [&str; 6] = ["SELECT", "INSERT", "UPDATE", "publish", "render", "authorise"];

pub(crate) fn service(number: u64) -> String {
    let area = AREAS[(number % 18) as usize];
    let role = ROLES[(number / 18 % 10) as usize];
    format!("{area}-{role}")
}

pub(crate) fn host(number: u64) -> String {
    format!("host-{:06x}", (number * 40_503 + 77) % 0x00FF_FFFF)
}

pub(crate) fn email(user: u64) -> String {
    let given = GIVEN[(user % 24) as usize];
    let family = FAMILY[(user / 24 % 24) as usize];
    let at = MAIL_HOSTS[(user % 5) as usize];
    format!("{given}.{family}{}@{at}", user / 576)
}

pub(crate) fn address(random: &mut Random) -> String {
    let bits = random.next();
    format!("198.{}.{}.{}", 18 + (bits & 1), bits >> 8 & 255, bits >> 16 & 255)
}

/// Sixteen digits in groups of four whose check digit is right, as on a payment card.
pub(crate) fn card(random: &mut Random) -> String {
    let mut digits = vec![4u64];
    digits.extend((0..14).map(|_| random.below(10)));
    let sum: u64 = digits
        .iter()
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit * 2) {
            (0, twice) if twice > 9 => twice - 9,
            (0, twice) => twice,
            _ => *digit,
        })
        .sum();
    digits.push((10 - sum % 10) % 10);
    let mut text = String::with_capacity(19);
    for (place, digit) in digits.iter().enumerate() {
        if place > 0 && place % 4 == 0 {
            text.push(' ');
        }
        text.push(char::from(b'0' + *digit as u8));
    }
    text
}
