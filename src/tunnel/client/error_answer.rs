//! The answers that dtunnel itself gives to a request, in the form of the Engine's errors.

/// The body of an error (`ErrorResponse` in the Engine's API).
pub(in crate::tunnel) fn error_body(message: &str) -> String {
    serde_json::json!({ "message": message }).to_string() + "\n"
}

/// An answer in HTTP/1.1 with this status line and JSON body. `closes` announces the end of the connection.
pub(in crate::tunnel) fn answer(status: &str, body: &str, closes: bool) -> String {
    let close = if closes { "Connection: close\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{close}\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_engines_and_says_whether_the_connection_ends() {
        let body = error_body("a \"b\"");
        assert_eq!(body, "{\"message\":\"a \\\"b\\\"\"}\n");
        let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 22\r\n";
        assert_eq!(answer("400 Bad Request", &body, false), format!("{head}\r\n{body}"));
        assert_eq!(answer("400 Bad Request", &body, true), format!("{head}Connection: close\r\n\r\n{body}"));
    }
}
