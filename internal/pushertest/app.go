package pushertest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// An App is the identity of an app as its owner knows it.
type App struct{ ID, Key, Secret string }

// MAC returns the lower-case hex HMAC-SHA256 of message under the app's secret,
// the one primitive of every signature of the protocol (section 4).
func (a App) MAC(message string) string {
	mac := hmac.New(sha256.New, []byte(a.Secret))
	mac.Write([]byte(message))
	return hex.EncodeToString(mac.Sum(nil))
}

// SignChannel returns the auth of a subscription, KEY:HEX. At most one
// channelData is taken; it is part of what is signed, also when it is empty.
func (a App) SignChannel(socketID, channel string, channelData ...string) string {
	message := socketID + ":" + channel
	if len(channelData) > 0 {
		message += ":" + channelData[0]
	}
	return a.Key + ":" + a.MAC(message)
}

// SignUser returns the auth of a sign-in, KEY:HEX.
func (a App) SignUser(socketID, userData string) string {
	return a.Key + ":" + a.MAC(socketID+"::user::"+userData)
}

// needsAuth tells whether a client has to sign a subscription to channel.
func needsAuth(channel string) bool {
	return strings.HasPrefix(channel, "private-") || strings.HasPrefix(channel, "presence-")
}
