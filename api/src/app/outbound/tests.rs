use tokio::net::TcpListener;

use setpoint_model::webhook::address::Allowed;

use super::*;

fn client(allowed: Allowed, plain: bool) -> Http {
    let options = Options {
        timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(20),
        max_answer: 1_024,
        idle_connections: 0,
        ways: Ways::Either,
        guard: Some(Guard { allowed, plain }),
    };
    Http::new(&options).unwrap()
}

async fn refused(http: &Http, url: &str) -> String {
    let request = Request::post(url).body(Vec::new()).unwrap();
    http.tell(request).await.unwrap_err().sentence()
}

#[tokio::test]
async fn no_connection_goes_to_an_address_that_is_not_permitted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let http = client(Allowed::Networks(Vec::new()), true);
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]"] {
        for scheme in ["http", "https"] {
            let sentence = refused(&http, &format!("{scheme}://{host}:{port}/")).await;
            assert!(
                sentence.ends_with("is a loopback address: webhooks.allow_private"),
                "{sentence}"
            );
        }
    }
    let sentence = refused(&http, "http://169.254.169.254/latest/meta-data/").await;
    assert!(
        sentence.contains("169.254.169.254 is a link-local address"),
        "{sentence}"
    );
    // A name that points inside.
    let sentence = refused(&http, &format!("http://localhost:{port}/")).await;
    assert!(
        sentence.contains("is a loopback address: webhooks.allow_private"),
        "{sentence}"
    );
    let nobody = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
    assert!(nobody.is_err(), "somebody connected");
}

#[tokio::test]
async fn without_tls_only_what_is_named_is_reached() {
    let none = client(Allowed::Networks(Vec::new()), false);
    let sentence = refused(&none, "http://192.0.0.9:1/").await;
    assert!(sentence.contains("is a reserved address"), "{sentence}");
    // An address of the public internet, to which nothing is sent.
    let guard = Guard {
        allowed: Allowed::All,
        plain: false,
    };
    let error = guard.check([1, 1, 1, 1].into(), true).unwrap_err();
    assert_eq!(
        error.to_string(),
        "1.1.1.1 is reached over https alone: webhooks.allow_http"
    );
    guard.check([1, 1, 1, 1].into(), false).unwrap();
    guard.check([10, 0, 0, 1].into(), true).unwrap();
}
