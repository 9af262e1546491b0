//! The table of refusals, and forms in which an address may hide.

use super::*;

fn what(ip: &str) -> &'static str {
    let closed = Policy::default();
    closed.refuses(ip.parse().unwrap()).unwrap_or("public")
}

#[test]
fn what_is_not_public_is_refused() {
    for (ip, expect) in [
        ("0.0.0.0", "an address of no machine"),
        ("0.1.2.3", "an address of no machine"),
        ("9.255.255.255", "public"),
        ("10.0.0.0", "an address of a private network"),
        ("10.255.255.255", "an address of a private network"),
        ("11.0.0.0", "public"),
        ("100.63.255.255", "public"),
        ("100.64.0.1", "an address of a provider's network"),
        ("100.100.100.200", "an address of a provider's network"),
        ("100.128.0.0", "public"),
        ("127.0.0.1", "an address of this machine"),
        ("127.255.255.254", "an address of this machine"),
        ("168.63.129.16", "an address of a cloud's metadata"),
        ("168.63.129.17", "public"),
        ("169.254.169.254", "a link-local address"),
        ("172.15.255.255", "public"),
        ("172.16.0.1", "an address of a private network"),
        ("172.31.255.255", "an address of a private network"),
        ("172.32.0.0", "public"),
        ("192.0.0.192", "a reserved address"),
        ("192.0.2.1", "an address for documentation"),
        ("192.88.99.1", "a reserved address"),
        ("192.168.1.1", "an address of a private network"),
        ("198.17.255.255", "public"),
        ("198.18.0.1", "an address for measurements"),
        ("198.19.255.255", "an address for measurements"),
        ("198.51.100.7", "an address for documentation"),
        ("203.0.113.7", "an address for documentation"),
        ("223.255.255.255", "public"),
        ("224.0.0.1", "a multicast address"),
        ("240.0.0.1", "a reserved address"),
        ("255.255.255.255", "a reserved address"),
        ("1.1.1.1", "public"),
        ("::", "an address of no machine"),
        ("::1", "an address of this machine"),
        ("::ffff:127.0.0.1", "an address of this machine"),
        ("::ffff:169.254.169.254", "a link-local address"),
        ("::ffff:8.8.8.8", "public"),
        ("::7f00:1", "an address of this machine"),
        ("64:ff9b::7f00:1", "an address of this machine"),
        ("64:ff9b::808:808", "public"),
        ("64:ff9b:1::7f00:1", "a reserved address"),
        ("2002:7f00:1::", "an address of this machine"),
        ("2002:c0a8:101::1", "an address of a private network"),
        ("2001:0:1:2::3", "a reserved address"),
        ("2001:db8::1", "an address for documentation"),
        ("3fff::1", "an address for documentation"),
        ("fc00::1", "an address of a private network"),
        ("fd00:ec2::254", "an address of a private network"),
        ("fe80::1", "a link-local address"),
        ("fec0::1", "an address of a private network"),
        ("ff02::1", "a multicast address"),
        ("100::1", "a reserved address"),
        ("4000::1", "a reserved address"),
        ("2606:4700:4700::1111", "public"),
    ] {
        assert_eq!(what(ip), expect, "{ip}");
    }
}

#[test]
fn networks_are_allowed_by_name_or_all_at_once() {
    let of = |networks: &[&str]| Policy {
        allow_private: false,
        networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
    };
    let some = of(&["10.1.0.0/16", "::1/128"]);
    let check = |policy: &Policy, ip: &str| policy.refuses(ip.parse().unwrap()).is_none();
    assert!(check(&some, "10.1.2.3") && check(&some, "::ffff:10.1.2.3") && check(&some, "::1"));
    assert!(!check(&some, "10.2.0.1") && !check(&some, "127.0.0.1"));
    assert!(some.is_open() && !Policy::default().is_open());
    let all = Policy {
        allow_private: true,
        networks: Vec::new(),
    };
    assert!(check(&all, "127.0.0.1") && check(&all, "fd00::1"));
}

#[test]
fn an_address_is_read_as_browsers_do_and_judged() {
    let closed = Policy::default();
    let says = |text: &str| check(text, &closed).unwrap_err().message;
    for text in [
        "https://ci.example.org/hook?token=a",
        "http://1.1.1.1:8080/",
        "https://[2606:4700:4700::1111]/",
    ] {
        assert!(check(text, &closed).is_ok(), "{text}");
    }
    // All of them are 127.0.0.1 once somebody connects.
    for text in [
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://[::ffff:7f00:1]/",
    ] {
        assert!(
            says(text).ends_with("is an address of this machine"),
            "{text}"
        );
    }
    assert!(says("ftp://example.org/").contains("`ftp` is not a scheme"));
    assert!(says("file:///etc/passwd").contains("`file` is not a scheme"));
    assert!(says("https://me:hush@example.org/").contains("a user or a password"));
    assert!(!says("https://me:hush@example.org/").contains("hush"));
    assert!(says("https://example.org:0/").contains("port 0"));
    assert!(says("nonsense").contains("no address"));
    assert!(says("https://").contains("no address"));
    assert!(says(&format!("https://example.org/{}", "x".repeat(3000))).contains("longer"));
}
