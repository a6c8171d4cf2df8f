//! The page where an owner signs in and enters the code of a device, in a real browser.

use serde_json::{Value, json};
use setpoint_tests::{Harness, eventually, harness::oidc::Provider};

use crate::{
    browser::tab::Tab,
    claiming::{ask, poll},
    oidc,
    sessions::{PASSWORD, person},
    totp::Factor,
};

/// Fills in who signs in, and goes on.
async fn sign_in(tab: &mut Tab, username: &str, password: &str) {
    tab.fill("#sign-in [name=username]", username).await;
    tab.fill("#sign-in [name=password]", password).await;
    tab.click("#sign-in button").await;
}

/// Whether a scheme of colours sets what is written off from what it stands on (WCAG 2.2, 1.4.3: 4.5 to 1).
async fn is_legible(tab: &mut Tab, selector: &str) -> bool {
    let ratio = format!(
        "(() => {{
            const luminance = (color) => {{
                const [r, g, b] = color.match(/[\\d.]+/g).map((part) => part / 255)
                    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            }};
            const element = document.querySelector({selector});
            let ground = element;
            while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
            const [a, b] = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map(luminance);
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        }})()",
        selector = json!(selector)
    );
    tab.value(&ratio).await.as_f64().unwrap() >= 4.5
}

#[tokio::test]
async fn an_owner_with_a_second_factor_registers_a_device() {
    let server = Harness::start().await;
    let anna = person(&server, "anna", "owner").await;
    let codes = ask(&server, "HALL-7").await;
    let mut tab = Tab::open(codes["verification_uri_complete"].as_str().unwrap()).await;

    tab.see("#sign-in").await;
    // Not before: its codes hold for a minute, and a browser may take longer to start.
    let factor = Factor::enrol(&anna).await;
    assert!(!tab.sees("#second-factor").await, "nobody asked for it yet");
    assert!(!tab.sees("#provider, #account, #enter, #confirm").await);
    sign_in(&mut tab, "anna", "not this one").await;
    tab.read("Wrong user name or password.").await;
    sign_in(&mut tab, "anna", PASSWORD).await;
    tab.read("enter a code").await;
    tab.fill("[name=totp]", "000000").await;
    tab.click("#sign-in button").await;
    tab.read("The code is wrong").await;
    tab.fill("[name=totp]", &factor.code(1)).await;
    tab.click("#sign-in button").await;

    tab.see("#enter").await;
    tab.read("Signed in as anna").await;
    let code = tab.value("document.querySelector('[name=code]').value").await;
    assert_eq!(code, codes["user_code"], "the address brought it");
    tab.fill("[name=code]", "bbbb bbbb").await;
    tab.click("#enter button").await;
    tab.read("This code is wrong").await;
    let code = codes["user_code"]
        .as_str()
        .unwrap()
        .to_lowercase()
        .replace('-', " ");
    tab.fill("[name=code]", &code).await;
    tab.click("#enter button").await;
    tab.see("#confirm").await;
    let shown = tab.text().await;
    for text in ["HALL-7", "home", "127.0.0.1"] {
        assert!(shown.contains(text), "{text} in {shown}");
    }
    poll(&server, &codes).await.expect(400);
    tab.click("[value=approve]").await;
    tab.read("HALL-7 is registered to you.").await;
    let devices = anna.get("/devices").await.expect(200);
    assert_eq!(devices["items"][0]["serial"], "HALL-7");

    tab.click("#done button").await;
    let codes = ask(&server, "HALL-8").await;
    tab.fill("[name=code]", codes["user_code"].as_str().unwrap())
        .await;
    tab.click("#enter button").await;
    tab.click("[value=deny]").await;
    tab.read("HALL-8 was refused.").await;
    assert_eq!(poll(&server, &codes).await.expect(400)["error"], "access_denied");

    tab.click("#account button").await;
    tab.see("#sign-in").await;
    // Its cookie is gone: a page that is loaded anew asks again who it is.
    tab.value("location.reload()").await;
    tab.see("#sign-in").await;
    assert!(!tab.sees("#account").await);
}

#[tokio::test]
async fn an_owner_signs_in_with_the_provider_and_keeps_their_code() {
    let provider = Provider::start().await;
    provider.person(json!({"sub": "7", "preferred_username": "Berta", "groups": ["tenants"]}));
    let setup = oidc::setup(&provider).with("sign_in.oidc.name", "Keycloak");
    let server = setup.start().await;
    let codes = ask(&server, "HALL-7").await;
    let mut tab = Tab::open(codes["verification_uri_complete"].as_str().unwrap()).await;
    tab.read("Sign in with Keycloak").await;
    tab.click("#provider").await;
    tab.read("Signed in as berta").await;
    let code = tab.value("document.querySelector('[name=code]').value").await;
    assert_eq!(code, codes["user_code"], "it went to the provider and back");
    tab.click("#enter button").await;
    tab.click("[value=approve]").await;
    tab.read("HALL-7 is registered to you.").await;
    poll(&server, &codes).await.expect(200);
    let owners = server.api().get("/devices/HALL-7/owners").await.expect(200);
    assert_eq!(owners["items"][0]["username"], "berta");
}

#[tokio::test]
async fn whom_the_provider_does_not_let_in_is_told_so_in_words() {
    let provider = Provider::start().await;
    provider.person(json!({"sub": "8", "preferred_username": "Carl", "groups": ["guests"]}));
    let server = oidc::setup(&provider).start().await;
    let address = format!("{}/activate", server.api().server());
    let mut tab = Tab::open(&address).await;
    tab.click("#provider").await;
    tab.read("Your account there has no role here.").await;
    tab.see("#sign-in").await;
    assert_eq!(tab.value("location.search").await, "", "it is told once");

    let gone = Provider::start().await;
    gone.stop().await;
    let server = oidc::setup(&gone).start().await;
    let address = format!("{}/activate", server.api().server());
    tab.value(&format!("location.href = {}", json!(address))).await;
    // Until the other server's page is there.
    eventually!(tab.value("location.href").await == address);
    tab.click("#provider").await;
    tab.read("It can't be reached just now.").await;
}

#[tokio::test]
async fn who_may_not_is_told_so_in_words() {
    let server = Harness::start().await;
    person(&server, "vera", "viewer").await;
    let codes = ask(&server, "HALL-7").await;
    let mut tab = Tab::open(codes["verification_uri_complete"].as_str().unwrap()).await;
    sign_in(&mut tab, "vera", PASSWORD).await;
    tab.see("#enter").await;
    tab.click("#enter button").await;
    tab.read("You may not register devices here.").await;
    // The session ends elsewhere.
    server.api().delete("/users/vera").await.expect(204);
    tab.click("#enter button").await;
    tab.read("Your session has ended.").await;
    tab.see("#sign-in").await;
}

#[tokio::test]
async fn the_page_is_legible_light_and_dark_and_on_a_telephone() {
    let server = Harness::start().await;
    let address = format!("{}/activate", server.api().server());
    let mut tab = Tab::open(&address).await;
    sign_in(&mut tab, "nobody", "at all").await;
    tab.read("Wrong user name or password.").await;
    for scheme in ["light", "dark"] {
        tab.prefer(scheme).await;
        for selector in [
            "h1",
            "#sign-in p",
            "label",
            "input",
            "#message",
            ".primary",
            "header",
        ] {
            assert!(
                is_legible(&mut tab, selector).await,
                "{selector} in the {scheme} scheme"
            );
        }
    }
    for width in [320, 390, 1200] {
        tab.resize(width).await;
        let wide = "document.documentElement.scrollWidth";
        assert!(tab.value(wide).await.as_u64().unwrap() <= width, "{width}");
        let narrow = "document.querySelector('main').getBoundingClientRect().width";
        let narrow: Value = tab.value(narrow).await;
        assert!(narrow.as_f64().unwrap() <= 420.0, "{narrow}");
    }
}
