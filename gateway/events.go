package gateway

import (
	"github.com/hedgerow-iot/hedgerow/ledger/api"
	"github.com/hedgerow-iot/hedgerow/protocols/mqtt"
)

// tangleEvents carries the events of the Tangle (TIP-28) from the ledger to the
// broker, and answers for what they say now.
type tangleEvents struct{ s *stages }

func (t tangleEvents) Event(topic string, payload []byte) { t.s.mqtt.Event(topic, payload) }
func (t tangleEvents) Listening() bool                    { return t.s.mqtt.Listening() }
func (t tangleEvents) Wanted(topic string) bool           { return t.s.mqtt.Wanted(topic) }

// Present returns what the topics of a filter say now. Those of blocks are too
// many for a wildcard.
func (t tangleEvents) Present(filter string) (out []mqtt.Event) {
	if t.s.events == nil {
		return nil // a newcomer has no Tangle yet
	}
	topics := []string{filter}
	if filter == "milestone-info/+" || filter == "milestone-info/#" {
		topics = []string{"milestone-info/latest", "milestone-info/confirmed"}
	}
	for _, topic := range topics {
		if payload, ok := t.s.events.Current(topic); ok {
			out = append(out, mqtt.Event{Topic: topic, Payload: payload})
		}
	}
	return out
}

var (
	_ api.Publisher   = tangleEvents{}
	_ mqtt.EventState = tangleEvents{}
)
