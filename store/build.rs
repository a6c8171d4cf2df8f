//! A new or changed migration must reach the binary: `sqlx::migrate!` alone does not tell Cargo.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
