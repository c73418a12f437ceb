//! What a signature covers, and which requests count as failed authentications.

use super::*;
use crate::shard::AccessTarget;

#[test]
fn an_escape_in_the_path_does_not_open_another_resource() {
    for (sent, signed_path) in [
        ("channels/presence-a%2Fusers", "channels/presence-a/users"),
        ("channels/a%252520b", "channels/a%2520b"),
        ("channels/a%2541", "channels/a%41"),
        ("channels/%61%2fusers", "channels/a/users"),
        ("channels/a%0Ab", "channels/a\nb"),
    ] {
        let (sent, signed_path) =
            (format!("/apps/1001/{sent}"), format!("/apps/1001/{signed_path}"));
        let refused = (401, "Authentication signature invalid.".to_owned());
        assert_eq!(
            answer(&run(&signed("GET", &sent, &signed_path, &[], ""), "")),
            refused,
            "{sent}"
        );
        let plan = run(&signed("GET", &sent, &sent, &[], ""), "");
        assert!(!matches!(plan, Plan::Unauthenticated(_)), "{sent}");
    }
    // No route has the decoded path, so it can mean only this.
    let path = "/apps/1001/channels/a/b%23c";
    let (sent, signed_path) = (path.replace("a/b", "a%2Fb"), path.replace("%23", "#"));
    assert!(matches!(run(&signed("GET", &sent, &signed_path, &[], ""), ""), Plan::Ask { .. }));
    // Some HTTP libraries encode the path after it was signed; user ids of identity providers look like this.
    let sent = "/apps/1001/users/auth0%7C7%20%C3%A9/terminate_connections";
    let signed_path = "/apps/1001/users/auth0|7 é/terminate_connections";
    let plan = run(&signed("POST", sent, signed_path, &[], ""), "");
    assert!(
        matches!(plan, Plan::EndAccess(command) if command.target == AccessTarget::User("auth0|7 é".into()))
    );
}

#[test]
fn a_query_has_at_most_64_parameters() {
    let names: Vec<String> = (0..62).map(|number| format!("p{number:02}")).collect();
    let query = |count: usize| names[..count].iter().map(|name| (name.as_str(), "v")).collect();
    let ask = |query: Vec<(&str, &str)>| get("channels", &query);
    // With key, version, timestamp and signature it is 64.
    assert!(matches!(ask(query(60)), Plan::Ask { .. }));
    let refused = ask(query(61));
    let (status, text) = answer(&refused);
    assert!(status == 400 && text.contains("more than 64 parameters"), "{status} {text}");
    assert!(matches!(refused, Plan::Unauthenticated(_)), "counted as a failed authentication");
    // An unknown app id is answered first, with Reverb's text.
    let many = "a&".repeat(2_900);
    let text = format!("GET /apps/nope/channels?{many} HTTP/1.1\r\nHost: x\r\n\r\n");
    let expected = (404, "No matching application for ID [nope].".to_owned());
    assert_eq!(answer(&run(&request(&text), "")), expected);
}

#[test]
fn a_request_that_fails_any_check_of_its_authentication_is_unauthenticated() {
    let path = "/apps/1001/channels";
    let old = (NOW - 700).to_string();
    for request in [
        signed("GET", "/apps/nope/channels", "/apps/nope/channels", &[], ""),
        signed("GET", path, "/elsewhere", &[], ""),
        signed("GET", path, path, &[("auth_timestamp", &old)], ""),
        request("GET /apps/1001/channels HTTP/1.1\r\nHost: x\r\n\r\n"),
        request(
            "GET /apps/1001/channels?auth_key=app-key&auth_signature=zz HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
    ] {
        assert!(matches!(run(&request, ""), Plan::Unauthenticated(_)), "{}", request.query());
    }
    // An invalid body of a signed request is no failed authentication.
    assert!(matches!(post("events", "{}"), Plan::Refuse(_)));
}

#[test]
fn repeated_parameters_are_signed_as_php_reads_them() {
    let path = "/apps/1001/channels";
    for (sent, signed_text) in [
        ("info=a&info=b", "info=b"),
        ("info[]=a&info[]=b", "info=a,b"),
        ("info%5B0%5D=a&Info%5b1%5d=b", "info=a,b"),
        ("info=a&info[]=b&info=c", "info=c"),
        ("info[]=&info[]=b", "info=b"),
        ("z=1&info=a%26b", "info=a&b&z=1"),
    ] {
        let tail = if signed_text.ends_with("z=1") { "" } else { "&z=1" };
        let text =
            format!("GET\n{path}\nauth_key=app-key&auth_timestamp={NOW}&{signed_text}{tail}");
        let hex = signature::sign(&Secret::new("app-secret"), &[text.as_bytes()]);
        let hex = String::from_utf8_lossy(&hex).into_owned();
        let sent = format!("auth_signature={hex}&{sent}&auth_key=app-key&z=1&auth_timestamp={NOW}");
        let request = request(&format!("GET {path}?{sent} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(matches!(run(&request, ""), Plan::Ask { .. }), "{sent}");
    }
}
