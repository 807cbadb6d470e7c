package session

import (
	"errors"
	"fmt"

	"sockudo/internal/node"
	"sockudo/internal/protocol"
	"sockudo/internal/sign"
	"sockudo/internal/ws"
)

// subscribe handles pusher:subscribe (protocol 2.4).
func (s *Session) subscribe(c *ws.Conn, data protocol.Value) error {
	req, err := protocol.DecodeSubscribe(data)
	if err != nil {
		return err
	}
	if err := s.checkName(req.Channel); err != nil {
		return err
	}
	if s.sock.Subscription(req.Channel) != nil {
		return &protocol.Error{Code: protocol.CodeGeneric, Message: "Existing subscription to channel " + req.Channel}
	}
	if most := s.gate.opts.MaxSubscriptions; most > 0 && s.sock.Subscriptions() >= most {
		return &protocol.SubscriptionError{Channel: req.Channel, Type: protocol.TypeLimitReached, Status: 403, Code: protocol.CodeGeneric,
			Message: fmt.Sprintf("Connection has %d subscriptions, the most that websocket.max_subscriptions allows", most)}
	}
	kind := protocol.KindOf(req.Channel)
	member, err := s.authorize(kind, &req)
	if err != nil {
		return err
	}
	err = s.gate.node.TryJoin(s.app, &s.sock, req.Channel, member)
	if errors.Is(err, node.ErrWait) {
		c.Await(func() {
			s.report(s.joined(kind, s.gate.node.Join(s.background(), s.app, &s.sock, req.Channel, member)))
		})
		return nil
	}
	return s.joined(kind, err)
}

// joined notes what a join means for the connection, and passes its error on.
func (s *Session) joined(kind protocol.Kind, err error) error {
	if err == nil && kind.Is(protocol.Private) {
		s.authorized()
	}
	return err
}

// checkName refuses names that no channel can have (protocol 3.1).
func (s *Session) checkName(channel string) error {
	most := s.app.Limits.ChannelNameLength
	switch {
	case most > 0 && protocol.Length(channel) > most:
		return &protocol.SubscriptionError{Channel: clip(channel), Type: protocol.TypeInvalidChannel, Status: 400, Code: protocol.CodeGeneric,
			Message: fmt.Sprintf("Channel name has %d characters, max_channel_name_length is %d", protocol.Length(channel), most)}
	case !protocol.ValidChannel(channel):
		return &protocol.SubscriptionError{Channel: clip(channel), Type: protocol.TypeInvalidChannel, Status: 400, Code: protocol.CodeGeneric,
			Message: "Invalid channel name: only letters, digits and _ - = @ , . ; are allowed"}
	}
	return nil
}

// authorize checks that the client may join and says who it is on a presence
// channel.
func (s *Session) authorize(kind protocol.Kind, req *protocol.Subscribe) (*protocol.Member, error) {
	switch {
	case kind.Is(protocol.User):
		if user := s.sock.User(); user == "" || req.Channel != protocol.UserPrefix+user {
			return nil, authError(req.Channel, "Only a connection that is signed in as this user can subscribe to "+req.Channel)
		}
		return nil, nil
	case !kind.Is(protocol.Private):
		return nil, nil
	}
	key, secrets := s.credentials()
	err := sign.VerifyChannel(req.Auth, key, secrets, s.sock.ID.String(), req.Channel, req.ChannelData)
	if err != nil {
		return nil, authError(req.Channel, s.authText(err, req))
	}
	if !kind.Is(protocol.Presence) {
		return nil, nil
	}
	return s.member(req)
}

// credentials returns the key of the app and the secrets that verify now.
func (s *Session) credentials() (key string, secrets []string) {
	a := s.gate.newest(s.app)
	for _, secret := range a.Secrets() {
		secrets = append(secrets, secret.Reveal())
	}
	return a.Key, secrets
}

func authError(channel, message string) error {
	return &protocol.SubscriptionError{Channel: channel, Type: protocol.TypeAuthError, Status: 401,
		Code: protocol.CodeUnauthorized, Message: message}
}

// authText says what is wrong with an auth value. It never tells the digest
// that would have been right.
func (s *Session) authText(err error, req *protocol.Subscribe) string {
	key, digest, _ := cutAuth(req.Auth)
	switch {
	case errors.Is(err, sign.ErrMissing):
		return "Auth info required to subscribe to " + req.Channel
	case errors.Is(err, sign.ErrMalformed):
		return "Auth value for subscription to " + req.Channel + " is invalid: should be of format 'key:signature'"
	case errors.Is(err, sign.ErrKey):
		return "Invalid key in subscription auth data: '" + clip(key) + "'"
	}
	signed := s.sock.ID.String() + ":" + req.Channel
	if req.ChannelData != nil && *req.ChannelData != "" {
		signed += ":" + *req.ChannelData
	}
	return "Invalid signature: Expected HMAC SHA256 hex digest of " + clip(signed) + ", but got " + clip(digest)
}

// member says who joins a presence channel (protocol 2.6).
func (s *Session) member(req *protocol.Subscribe) (*protocol.Member, error) {
	if req.ChannelData == nil || *req.ChannelData == "" {
		if s.user == nil {
			return nil, authError(req.Channel, "channel_data with a user_id is required to subscribe to "+req.Channel)
		}
		return s.user, s.checkMember(req.Channel, s.user)
	}
	m, err := protocol.DecodeMember(*req.ChannelData)
	if err != nil {
		return nil, authError(req.Channel, "Invalid presence data for "+req.Channel+": "+err.Error())
	}
	return &m, s.checkMember(req.Channel, &m)
}

func (s *Session) checkMember(channel string, m *protocol.Member) error {
	message := ""
	most := s.app.Limits.PresenceMemberBytes
	switch {
	case protocol.Length(m.ID) > protocol.MaxUserIDLength:
		message = fmt.Sprintf("user_id has %d characters, the most is %d", protocol.Length(m.ID), protocol.MaxUserIDLength)
	case most > 0 && len(m.Info) > most:
		message = fmt.Sprintf("user_info has %d bytes, max_presence_member_size_in_kb allows %d", len(m.Info), most)
	default:
		return nil
	}
	return &protocol.SubscriptionError{Channel: channel, Type: protocol.TypeLimitReached, Status: 413,
		Code: protocol.CodeGeneric, Message: message}
}

// unsubscribe handles pusher:unsubscribe (protocol 2.5): silently, whatever
// the channel.
func (s *Session) unsubscribe(data protocol.Value) error {
	req, err := protocol.DecodeSubscribe(data)
	if err != nil {
		return err
	}
	if sub := s.sock.Subscription(req.Channel); sub != nil {
		s.gate.node.Leave(&s.sock, sub)
	}
	return nil
}
