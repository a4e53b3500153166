//! One HTTP connection to an Engine: requests one after another, or the stream of its events.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

use super::Error;
use super::containers::{Container, Listed, ListedMounting, ListedService, Mounting};

/// Limit of an answer, in bytes: a list of some ten thousand containers.
const MAX_ANSWER: usize = 16 << 20;

/// A connection, closed on drop.
#[derive(Debug)]
pub struct Session {
    sender: http1::SendRequest<Empty<Bytes>>,
    /// Drives the connection. Its errors reach the caller that waits for an answer.
    connection: AbortOnDropHandle<()>,
}

impl Session {
    /// Starts HTTP on a stream that leads to an Engine.
    ///
    /// # Errors
    /// [`Error::Http`].
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self, Error> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
        Ok(Self { sender, connection })
    }

    /// Requests `path`; returns the answer's headers and body.
    ///
    /// # Errors
    /// [`Error::Http`], [`Error::Status`], [`Error::Body`].
    pub(super) async fn get(&mut self, path: &str) -> Result<(HeaderMap, Bytes), Error> {
        let (parts, body) = self.ask(path).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| Error::Body(e.to_string()))?;
        Ok((parts.headers, body.to_bytes()))
    }

    /// Requests `path` within `limit`; returns the parsed JSON answer.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn json<T: DeserializeOwned>(&mut self, path: &str, limit: Duration) -> Result<T, Error> {
        let answer = tokio::time::timeout(limit, self.get(path)).await.map_err(|_| Error::Timeout(limit))?;
        serde_json::from_slice(&answer?.1).map_err(Error::json)
    }

    /// The running containers (`GET /containers/json`), within `limit`.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn containers(&mut self, limit: Duration) -> Result<Vec<Container>, Error> {
        let listed: Vec<Listed> = self.json("/containers/json", limit).await?;
        Ok(listed.into_iter().map(Container::from).collect())
    }

    /// All containers, with what they mount of the host (`GET /containers/json?all=1`), within `limit`.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn mountings(&mut self, limit: Duration) -> Result<Vec<Mounting>, Error> {
        let listed: Vec<ListedMounting> = self.json("/containers/json?all=1", limit).await?;
        Ok(listed.into_iter().map(Mounting::from).collect())
    }

    /// Whether the Engine manages a swarm (`GET /info`), within `limit`.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn manages_swarm(&mut self, limit: Duration) -> Result<bool, Error> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Swarm {
            control_available: bool,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Info {
            #[serde(default)]
            swarm: Option<Swarm>,
        }
        let info: Info = self.json("/info", limit).await?;
        Ok(info.swarm.unwrap_or_default().control_available)
    }

    /// The services of the swarm, with the ports that every node publishes (`GET /services`), within `limit`.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn services(&mut self, limit: Duration) -> Result<Vec<Container>, Error> {
        let listed: Vec<ListedService> = self.json("/services", limit).await?;
        Ok(listed.into_iter().map(Container::from).collect())
    }

    /// The id of the container that a client names so, by its name, its id or the beginning of its id
    /// (`GET /containers/NAME/json`), within `limit`. None if there is none.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn container_id(&mut self, name: &str, limit: Duration) -> Result<Option<String>, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Named {
            id: String,
        }
        match self.json(&format!("/containers/{name}/json"), limit).await {
            Ok(Named { id }) => Ok(Some(id)),
            Err(Error::Status(StatusCode::NOT_FOUND)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stops a container at once (`POST /containers/ID/stop`), within `limit`.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn stop(&mut self, id: &str, limit: Duration) -> Result<(), Error> {
        let mut request = request(&format!("/containers/{id}/stop?t=0"))?;
        *request.method_mut() = Method::POST;
        let answer = tokio::time::timeout(limit, self.sender.send_request(request)).await;
        match answer.map_err(|_| Error::Timeout(limit))??.status() {
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Ok(()),
            other => Err(Error::Status(other)),
        }
    }

    /// Subscribes to events that change the running containers, their names, or the swarm's services (`GET /events`). No
    /// event is missed after this returns.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn changes(self, limit: Duration) -> Result<Changes, Error> {
        // {"type":["container","service"],"event":["start","die","destroy","rename","update","remove"]}; a service that is
        // created is updated when its ports are published.
        const PATH: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22service%22%5D%2C\
                            %22event%22%3A%5B%22start%22%2C%22die%22%2C%22destroy%22%2C%22rename%22%2C\
                            %22update%22%2C%22remove%22%5D%7D";
        self.events(PATH, limit).await
    }

    /// As [`Session::changes`], for all containers, running or not.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn changes_of_all(self, limit: Duration) -> Result<Changes, Error> {
        // {"type":["container"],"event":["create","start","die","destroy","rename"]}
        const PATH: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C\
                            %22event%22%3A%5B%22create%22%2C%22start%22%2C%22die%22%2C%22destroy%22%2C%22rename%22%5D%7D";
        self.events(PATH, limit).await
    }

    async fn events(mut self, path: &str, limit: Duration) -> Result<Changes, Error> {
        let answer = tokio::time::timeout(limit, self.ask(path)).await.map_err(|_| Error::Timeout(limit))??;
        Ok(Changes { body: answer.into_body(), _session: self })
    }

    async fn ask(&mut self, path: &str) -> Result<Response<Incoming>, Error> {
        let answer = self.sender.send_request(request(path)?).await?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            other => {
                // Read to its end, so that the connection can be used for the next request.
                let _ = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
                Err(Error::Status(other))
            }
        }
    }

    /// Whether the other end has closed the connection.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed() || self.connection.is_finished()
    }
}

/// A GET without a body.
fn request(path: &str) -> Result<Request<Empty<Bytes>>, Error> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = hyper::Uri::try_from(path).map_err(|e| Error::Body(e.to_string()))?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("docker"));
    Ok(request)
}

/// The stream of changes. An event reports only that something changed; the caller lists the containers again.
#[derive(Debug)]
pub struct Changes {
    body: Incoming,
    _session: Session,
}

impl Changes {
    /// Waits for the next change. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Http`] if the stream broke, [`Error::Body`] if it ended.
    pub async fn next(&mut self) -> Result<(), Error> {
        loop {
            match self.body.frame().await {
                Some(Ok(frame)) if frame.data_ref().is_some_and(|data| !data.is_empty()) => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Error::Http(error)),
                None => return Err(Error::Body("it ended".into())),
            }
        }
    }
}
